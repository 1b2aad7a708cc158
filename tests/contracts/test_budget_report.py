"""`report budget` from real policies and a real ledger: what counts towards a budget, and nothing else."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from click.testing import CliRunner, Result

from tests.priced_rows import insert, row
from tollmeter.broker.policies import set_policy
from tollmeter.cli.report import report
from tollmeter.schemas.policy import Policy
from tollmeter.settings import Settings
from tollmeter.sinks.clickhouse.client import connect

pytestmark = pytest.mark.stack


def run(settings: Settings, *arguments: str) -> Result:
    return CliRunner().invoke(report, ["budget", *arguments], obj=settings, standalone_mode=False)


def calls(count: int, tokens_in: int, tokens_out: int, first: int, **changes: Any) -> list[dict[str, Any]]:
    """Calls of gpt-4o at 2.50 and 10 USD per million tokens, made now."""
    at = datetime.now(UTC)
    common = {
        "event_time": at,
        "received_at": at,
        "org_id": "acme",
        "provider": "openai",
        "model_sent": "gpt-4o",
        "status": "OK",
        "billing_scope": "ORG",
        "operation_name": "summarise",
        "input_tokens": tokens_in,
        "output_tokens": tokens_out,
        "cost_nano": 2_500 * tokens_in + 10_000 * tokens_out,
    }
    return [row(first + number, **common | changes) for number in range(count)]


def test_a_call_that_failed_and_used_nothing_is_no_unknown_cost(line_settings: Settings) -> None:
    set_policy(line_settings, Policy(org_id="acme", scope="provider", name="openai", monthly_limit_micro=10_000_000))
    client = connect(line_settings)
    failed = calls(2, 0, 0, 1, status="ERROR", price_status="NO_USAGE", cost_nano=None, operation_name="a\x1b[31m")
    insert(client, [*failed, *calls(1, 5, 0, 9, price_status="UNKNOWN_MODEL", cost_nano=None)])
    client.close()
    (fields,) = json.loads(run(line_settings, "--json").stdout)["budgets"]
    assert (fields["calls"], fields["unpriced"]) == (3, 1)
    assert "\x1b" not in run(line_settings).stdout


def test_golden_report_and_what_does_not_count(line_settings: Settings) -> None:
    missing = run(line_settings)
    assert missing.exit_code == 1
    assert "no monthly budget for a provider" in str(missing.exception)
    openai = Policy(
        org_id="acme", scope="provider", name="openai", monthly_limit_micro=10_000_000, alert_remaining_micro=5_000_000
    )
    set_policy(line_settings, openai)
    client = connect(line_settings)
    last_month = datetime.now(UTC).replace(day=1) - timedelta(days=3)
    insert(
        client,
        [
            *calls(125, 288, 70, 1),
            *calls(1, 307, 173, 200),
            *calls(1, 10**6, 0, 300, billing_scope="USER"),
            *calls(1, 0, 0, 301, status="BLOCKED", cost_nano=0),
            *calls(1, 10**6, 0, 302, provider="anthropic"),
            *calls(1, 10**6, 0, 303, org_id="umbra"),
            *calls(1, 10**6, 0, 304, event_time=last_month, received_at=last_month),
        ],
    )
    shown = run(line_settings)
    assert shown.exit_code == 0, shown.output
    assert shown.return_value == 0
    verdict = shown.stdout.rstrip().split("\n")[-1]
    assert verdict == "OK provider openai of acme: 126 calls, 45,230 tokens, $0.18 spent, $9.82 remaining"
    document = json.loads(run(line_settings, "--json").stdout)
    assert document["verdict"] == "OK"
    (fields,) = document["budgets"]
    assert (fields["calls"], fields["tokens"], fields["budget"]) == (126, 45_230, 10.0)
    assert (round(fields["spent"], 2), round(fields["remaining"], 2)) == (0.18, 9.82)

    insert(client, calls(1, 0, 0, 400, cost_nano=None, at_risk_nano=5_000_000_000))  # unknown is not free
    client.close()
    shown = run(line_settings, "--org", "acme")
    assert shown.return_value == 1
    assert shown.stdout.rstrip().split("\n")[-1].startswith("ALERT provider openai of acme: 127 calls")
    assert "in it: 1 calls of unknown cost, estimated at $5.00" in shown.stdout
