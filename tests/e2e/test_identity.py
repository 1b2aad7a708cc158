"""A limit of a model holds however it is called: policy, `send` of the name that was answered, alert, refusal."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from tests.workers import Workers, alerts
from tollmeter.cli.policy import policy
from tollmeter.producers.client.client import UsageProducer
from tollmeter.producers.guard.guard import Guard
from tollmeter.settings import Settings

pytestmark = pytest.mark.stack


def command(settings: Settings, *arguments: str) -> Any:
    done = CliRunner().invoke(policy, [*arguments, "--org", "acme", "--json"], obj=settings)
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def set_limit(settings: Settings, scope: str, name: str) -> Any:
    return command(settings, "set", "--scope", scope, "--name", name, "--daily", "0.001")


def test_a_limit_of_a_model_meets_its_dated_answers(
    line: Settings, workers: Workers, eventually: Callable[..., Any], tmp_path: Path
) -> None:
    line = line.model_copy(update={"spool_dir": str(tmp_path / "spool")})
    for stage in ("price", "ledger", "watch"):
        workers(stage)
    made = [
        set_limit(line, "model", " OpenAI/GPT-4o"),
        set_limit(line, "model", "gpt-4o-mini-2024-07-18"),
        set_limit(line, "provider", "Anthropic"),
    ]
    assert [(one["scope"], one["name"]) for one in made] == [
        ("model", "gpt-4o"),
        ("version", "gpt-4o-mini-2024-07-18"),
        ("provider", "anthropic"),
    ]
    used = {"input_tokens": 1_000_000, "output_tokens": 10, "status": "OK", "usage_source": "PROVIDER"}
    with UsageProducer(settings=line, service="shop", org_id="acme") as producer:
        for provider, sent, answered in (
            ("openai", "gpt-4o", "gpt-4o-2024-08-06"),
            ("openai", "gpt-4o-mini", "gpt-4o-mini-2024-07-18"),
            ("anthropic", "claude-sonnet-4-5", "claude-sonnet-4-5-20250929"),
        ):
            producer.record(provider=provider, model_sent=sent, model_used=answered, billing_scope="ORG", **used)

    def told() -> set[tuple[str, str]]:
        found = {(alert["data"]["scope"], alert["data"]["name"]) for alert in alerts(line, "budget")}
        return found if len(found) == 3 else set()

    expected = {("model", "gpt-4o"), ("version", "gpt-4o-mini-2024-07-18"), ("provider", "anthropic")}
    assert eventually(told, 120, 0.5) == expected
    with Guard(settings=line, producer=UsageProducer(mode="memory", service="shop")) as guard:
        assert guard.ready(600.0), guard.problem
        refused = [("openai", "GPT-4o"), ("OpenAI", "openai/gpt-4o"), ("", " gpt-4o-2024-11-20"), ("azure", "gpt-4o")]
        refused += [("openai", "gpt-4o-mini-2024-07-18"), ("Anthropic", "claude-opus-4-1")]
        for provider, model in refused:
            asked = {"provider": provider, "prompt_tokens": 1_000, "max_output_tokens": 10, "org": "acme"}
            (denied,) = eventually(lambda: _denied(guard, model, asked), 60, 0.2)  # noqa: B023
            assert denied.body["error"] == "CostLimitExceeded", (provider, model)
        plain = {"provider": "openai", "prompt_tokens": 1, "max_output_tokens": 1, "org": "acme"}
        assert not guard.check("gpt-4o-mini", **plain), "until an answer is heard, an alias may be the version"
        guard.answered("gpt-4o-mini", "gpt-4o-mini-2025-03-01", "openai")
        assert guard.check("gpt-4o-mini", **plain), "the limit of one version is not that of all"
    said = command(line, "explain", "--model", "OPENAI/gpt-4o-2024-08-06")
    assert said["meant"]["model"] == "gpt-4o"
    assert [(row["name"], row["used"], row["guards_see"]) for row in said["budgets"]] == [("gpt-4o", *2 * [2500100000])]


def _denied(guard: Guard, model: str, asked: dict[str, Any]) -> list[Any]:
    """Return the refusal, which is false itself, in a list; none while the call is allowed."""
    decision = guard.check(model, **asked)
    return [] if decision else [decision]
