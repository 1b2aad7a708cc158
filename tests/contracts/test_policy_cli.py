"""`tollmeter policy` and `tollmeter member` on the real log and ledger: one clear answer or one clear error."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.priced_rows import insert, row
from tollmeter.broker.policies import Change, _reach, _write, read_rules
from tollmeter.cli.root import run
from tollmeter.schemas.policy import Limit
from tollmeter.settings import Settings
from tollmeter.sinks.clickhouse.client import connect

pytestmark = pytest.mark.stack
Say = Callable[..., tuple[int, str, str]]
CONNECTION = (
    "kafka",
    "topic_prefix",
    "group_prefix",
    "clickhouse",
    "clickhouse_user",
    "clickhouse_database",
    "data_dir",
)


@pytest.fixture(name="say")
def commands(line_settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Say:
    for name in CONNECTION:
        monkeypatch.setenv(f"TOLLMETER_{name.upper()}", str(getattr(line_settings, name)))

    monkeypatch.setenv("TOLLMETER_CLICKHOUSE_PASSWORD", line_settings.clickhouse_password.get_secret_value())

    def say(line: str, *more: str) -> tuple[int, str, str]:
        code = run([*line.split(), *more])
        said = capsys.readouterr()
        assert "Traceback" not in said.err
        return code, said.out, said.err

    return say


def spent(settings: Settings, *rows: dict[str, Any]) -> None:
    """Calls of now, in the ledger."""
    client = connect(settings)
    at = datetime.now(UTC)
    fields = {"event_time": at, "received_at": at, "org_id": "acme", "status": "OK", "provider": "openai"}
    insert(client, [row(number, **(fields | changed)) for number, changed in enumerate(rows)])
    client.close()


def test_a_policy_is_set_shown_replaced_and_deleted(say: Say, line_settings: Settings) -> None:
    code, out, _ = say(
        "policy set --org acme --scope group --name web --applies each_member --daily 1.00 --weekly 5 --rolling 24=2.5 "
        "--limit day/tokens=1000000 --limit month/requests=500 --currency EUR --timezone Europe/Berlin --warn-pct 70 "
        "--alert-pct 50 --alert-pct 100 --alert-remaining 0.25 --json"
    )
    document = json.loads(out)
    assert code == 0
    policy = read_rules(line_settings).policies["acme/group/web/each_member/EUR"]
    assert document == {"policy_id": policy.policy_id, **policy.model_dump(mode="json")}
    assert policy.limits == (
        Limit(period="week", amount=5_000_000),
        Limit(period="rolling", hours=24, amount=2_500_000),
        Limit(period="day", measure="tokens", amount=1_000_000),
        Limit(period="month", measure="requests", amount=500),
    )
    assert (policy.daily_limit_micro, policy.monthly_limit_micro) == (1_000_000, None)
    assert (policy.timezone, policy.thresholds, policy.alert_remaining_micro) == (
        "Europe/Berlin",
        (50, 70, 100),
        250_000,
    )

    assert say("policy set --org acme --monthly 10")[1] == (
        "policy acme/org//pool/USD is in force (for all calls of the scope together); "
        "alerts at 20 %, 50 %, 80 %, 100 %\n"
    )
    assert [entry["policy_id"] for entry in json.loads(say("policy list --json")[1])] == [
        "acme/group/web/each_member/EUR",
        "acme/org//pool/USD",
    ]
    assert json.loads(say("policy list --org umbra --json")[1]) == []
    code, out, _ = say("policy get --org acme --scope group --name web")
    assert code == 0
    assert "day/money 1.00, week/money 5.00, rolling24h/money 2.50, day/tokens 1000000, month/requests 500" in out

    say("policy set --org acme --scope group --name web --daily 3")
    code, _, err = say("policy delete --org acme --scope group --name web")
    assert code == 2
    assert err == (
        "tollmeter: 2 policies fit: acme/group/web/each_member/EUR, acme/group/web/pool/USD; "
        "say which with --applies and --currency\n"
    )
    assert say("policy delete --org acme --scope group --name web --applies pool")[1] == (
        "policy acme/group/web/pool/USD is gone\n"
    )
    assert say("policy delete --org acme --scope group --name web")[0] == 0
    assert say("policy delete --org acme --scope group --name web") == (0, "acme/group/web has no such policy\n", "")
    code, out, err = say("policy get --org acme --scope group --name web --json")
    assert (code, json.loads(out)) == (1, [])
    assert err == "tollmeter: acme/group/web has no policy: no limit, warn 80 %\n"


def test_limits_and_thresholds_of_zero_or_less_are_absent(say: Say, line_settings: Settings) -> None:
    line = "policy set --org acme --daily 0 --monthly -1 --limit day/tokens=0 --rolling 24=0.0 --warn-pct"
    code, out, _ = say(f"{line} 0")
    assert (code, out.endswith("; without a limit\n")) == (0, True)
    policy = read_rules(line_settings).policies["acme/org//pool/USD"]
    assert (policy.all_limits, policy.warn_threshold_pct) == ((), 80)
    assert say(f"{line} -5 --weekly 3")[0] == 0
    policy = read_rules(line_settings).policies["acme/org//pool/USD"]
    assert ([limit.key for limit in policy.all_limits], policy.warn_threshold_pct) == (["week/money"], 80)


def test_an_unknown_user_is_refused_until_created_or_seen(say: Say, line_settings: Settings) -> None:
    code, _, err = say("policy set --org acme --scope user --name eve --daily 1")
    assert code == 2
    assert err == (
        "tollmeter: nobody knows user eve of acme: not in the membership, never seen in an event; "
        "--create adds to the membership\n"
    )
    assert read_rules(line_settings).policies == {}
    assert say("policy set --org acme --scope user --name eve --daily 1 --create")[0] == 0
    assert [member.member_id for member in read_rules(line_settings).groups.members] == ["acme/user/eve"]
    assert say("policy set --org acme --scope user --name eve --no-limits")[0] == 0
    spent(line_settings, {"user_id": "ann"})
    assert say("policy set --org acme --scope user --name ann --daily 1.00")[0] == 0
    assert say("policy set --org umbra --scope user --name ann --daily 1.00")[0] == 2


def test_files_round_trip_show_the_difference_and_are_taken_whole(
    say: Say, line_settings: Settings, tmp_path: Path
) -> None:
    say("member set --org acme --user ann --in web --in ops")
    say("policy set --org acme --scope user --name ann --daily 1.00")
    say("policy set --org acme --monthly 10")
    _, text, _ = say("policy export")
    file = tmp_path / "policies.yaml"
    file.write_text(text)
    assert say("policy import", str(file))[1] == "0 are new, 0 changed, 2 as before\n"

    file.write_text(
        text.replace("1.00", "2.00") + "- {org: acme, scope: model, name: gpt-5, limits: {day/tokens: 9}}\n"
    )
    shown = (
        "+ acme/model/gpt-5/pool/USD: day/tokens 9, zone UTC, warn at % 80, alerts at % 20/50/80/100, "
        "alert below none\n"
        "~ acme/user/ann/pool/USD: day/money 1.00 → 2.00\n"
    )
    dry = say("policy import --dry-run", str(file))
    assert dry == (0, f"{shown}nothing was written; 1 would be new, 1 changed, 1 as before\n", "")
    assert len(read_rules(line_settings).policies) == 2
    code, out, _ = say("policy import --json", str(file))
    assert json.loads(out) == {
        "added": ["acme/model/gpt-5/pool/USD"],
        "changed": {"acme/user/ann/pool/USD": {"day/money": ["1.00", "2.00"]}},
        "unchanged": 1,
        "dry_run": False,
    }
    rules = read_rules(line_settings)
    assert len(rules.policies) == 3
    assert rules.policies["acme/user/ann/pool/USD"].daily_limit_micro == 2_000_000

    wrong = {
        "- {org: acme, scope: user, name: eve}\n": "nobody knows user eve of acme",
        "- {org: acme, limits: {day/money: -1}}\n": f"{file}:30: policies.3.limits.day/money: -1 must be above 0",
    }
    for addition, error in wrong.items():
        file.write_text(text.replace("10.00", "77.00") + "- {org: acme, scope: agent, name: a}\n" + addition)
        code, _, err = say("policy import", str(file))
        assert code == 2
        assert error in err
        assert read_rules(line_settings).policies == rules.policies


def test_the_membership(say: Say, line_settings: Settings, tmp_path: Path) -> None:
    assert say("member set --org acme --user ann --in web") == (0, "user ann of acme is in web\n", "")
    say("member set --org acme --group web --in dev")
    found = json.loads(say("member list --org acme --json")[1])
    assert found[1] == {"org": "acme", "kind": "user", "name": "ann", "groups": ["web"], "all_groups": ["dev", "web"]}
    assert say("member set --org acme --group dev --in web")[2] == (
        "tollmeter: group dev of acme contains itself: dev → web → dev: take one of these steps out\n"
    )
    for form in ("yaml", "csv"):
        file = tmp_path / f"m.{form}"
        file.write_text(say(f"member export --format {form}")[1])
        assert say("member import", str(file))[1] == "0 are new, 0 changed, 2 as before\n"
    file = tmp_path / "ring.csv"
    file.write_text("org,kind,name,group\nacme,user,bob,web\nacme,group,dev,ops\nacme,group,ops,web\n")
    for option in ("--dry-run", "--json"):
        code, _, err = say("member import", option, str(file))
        assert code == 2
        assert "contains itself: dev → ops → web → dev" in err
    assert len(read_rules(line_settings).groups.members) == 2
    assert say("member delete --org acme --group web") == (0, "group web of acme is not in the membership\n", "")
    assert say("member delete --org acme --group web")[0] == 0
    assert read_rules(line_settings).groups.of("acme", "ann") == ("web",)


def test_explain_names_what_decided_what_lost_and_what_was_used(say: Say, line_settings: Settings) -> None:
    say("member set --org acme --user ann --in web")
    for line in (
        "--applies each_member --currency EUR --daily 5",
        "--scope group --name web --applies each_member --currency EUR --daily 2 --warn-pct 60",
        "--scope provider --name openai --monthly 10",
        "--scope tag --name team=blue --limit rolling24h/requests=4",
        "--scope model --name gpt-5 --daily 1",
        "--scope group --name web --weekly 100",
        "--scope group --name ops --weekly 50",
    ):
        assert say(f"policy set --org acme {line}")[0] == 0
    spent(
        line_settings,
        {"user_id": "ann", "cost_eur_nano": 500_000_001, "cost_nano": 600_000_000},
        {"user_id": "bob", "cost_nano": 1_900_000_000, "tags": [{"key": "team", "value": "blue"}]},
    )
    asked = "policy explain --org acme --user ann --provider openai --tag team=blue"
    code, out, _ = say(f"{asked} --json")
    found = json.loads(out)
    assert code == 0
    assert (found["known"], found["groups"], found["warn_threshold_pct"]) == (True, ["web"], 60)
    names = ("scope", "name", "period", "unit", "limit", "used", "remaining", "percent", "policy_id", "why")
    assert [tuple(row[name] for name in names) for row in found["budgets"]] == [
        (
            "user",
            "ann",
            "day@UTC",
            "EUR",
            2_000_000_000,
            500_000_001,
            1_499_999_999,
            25,
            "acme/group/web/each_member/EUR",
            "the smallest of 2 for each member",
        ),
        (
            "group",
            "web",
            "week@UTC",
            "USD",
            100_000_000_000,
            0,
            100_000_000_000,
            0,
            "acme/group/web/pool/USD",
            "what all calls of group web spend together",
        ),
        (
            "provider",
            "openai",
            "month@UTC",
            "USD",
            10_000_000_000,
            2_500_000_000,
            7_500_000_000,
            25,
            "acme/provider/openai/pool/USD",
            "what all calls of provider openai spend together",
        ),
        (
            "tag",
            "team=blue",
            "rolling24h@UTC",
            "requests",
            4,
            1,
            3,
            25,
            "acme/tag/team=blue/pool/USD",
            "what all calls of tag team=blue spend together",
        ),
    ]
    assert found["lost"] == [
        {
            "policy_id": "acme/org//each_member/EUR",
            "period": "day@UTC",
            "unit": "EUR",
            "limit": 5_000_000_000,
            "reason": "smaller_limit",
            "to": "acme/group/web/each_member/EUR",
        }
    ]
    named = json.loads(say(f"{asked} --group ops --json")[1])
    assert named["groups"] == ["ops", "web"]
    assert [row["name"] for row in named["budgets"]] == ["ann", "ops", "web", "openai", "team=blue"]
    text = say(asked)[1]
    assert text.startswith("user ann of acme in web; warned at 60 %\n")
    assert "0.500001" in text  # used, rounded up
    assert "1.499999" in text  # remaining, rounded down
    assert "a smaller limit of its kind is in force: acme/group/web/each_member/EUR" in text
    _, text, _ = say("policy explain --org umbra --user eve")
    assert "nobody knows this user" in text
    assert "no limit binds these calls" in text


def test_explain_answers_without_the_ledger(say: Say, monkeypatch: pytest.MonkeyPatch) -> None:
    say("policy set --org acme --monthly 10")
    monkeypatch.setenv("TOLLMETER_CLICKHOUSE", "http://127.0.0.1:9")
    code, out, err = say("policy explain --org acme --json")
    assert code == 0
    assert err.startswith("what was used is unknown: ClickHouse at http://127.0.0.1:9 does not answer")
    (row_,) = json.loads(out)["budgets"]
    assert (row_["limit"], row_["used"], row_["remaining"]) == (10_000_000_000, None, None)
    code, _, err = say("policy set --org acme --scope user --name ann --daily 1")
    assert code == 2
    assert "cannot tell whether ann is known" in err


def test_status(say: Say, line_settings: Settings) -> None:
    say("policy set --org acme --applies each_member --currency EUR --daily 5")
    code, _, err = say("policy status --org acme --user ann")
    assert (code, err) == (1, "tollmeter: user not found\n")
    spent(line_settings, {"user_id": "ann", "cost_eur_nano": 500_000_001, "api_key_id": "0123456789abcdef"})
    code, out, _ = say("policy status --org acme --user ann --json")
    found = json.loads(out)
    assert code == 0
    assert (found["cost_used_today_micro_eur"], found["cost_remaining_today_micro_eur"]) == (500_001, 4_499_999)
    assert "cost_limit_month_micro_eur" not in found
    text = say("policy status --org acme --user ann")[1]
    assert "0.500001" in text
    assert "openai ···89abcdef" in text
    assert json.loads(say("policy status --org acme --user ann --own-keys --json")[1])["billing_scope_org"] is False


def rules_travel_in_files(say: Say, folder: Path) -> None:
    """What is exported is put in force again; the difference is shown, and a wrong file changes nothing."""
    before = say("policy models list --org acme --json")[1]
    file = folder / "rules.yaml"
    file.write_text(say("policy export --org acme")[1])
    assert say("policy import", str(file))[1] == "0 are new, 0 changed, 2 as before\n"
    for scope in ("--scope user --name ann", "--scope group --name web"):
        assert say(f"policy models delete --org acme {scope}")[0] == 0
    assert say("policy import", str(file))[1].endswith("2 are new, 0 changed, 0 as before\n")
    assert say("policy models list --org acme --json")[1] == before
    file.write_text("models:\n- {org: acme, scope: group, name: web, allowed: [GPT-4.1, o3]}\n")
    assert say("policy import", str(file))[1] == (
        "~ models:acme/group/web: allowed gpt-4.1 → gpt-4.1, o3\n0 are new, 1 changed, 0 as before\n"
    )


def test_a_rule_about_models_is_tried_out_on_past_calls(say: Say, line_settings: Settings) -> None:
    """Of five calls three are to a model that is not allowed; those on users' own keys and refused ones are none."""
    call = {"provider": "openai", "provider_id": "openai"}
    other = {"provider": "aws", "provider_id": "aws", "model_sent": "us.anthropic.claude-sonnet-4-5-20250929-v1:0"}
    dear = {"model_sent": "gpt-4o", "cost_nano": 250_000_000}
    spent(
        line_settings,
        call | dear | {"user_id": "ann"},
        call | dear | {"user_id": "bob"},
        call | {"model_sent": "gpt-4o-mini-2024-07-18", "cost_nano": 1},
        other | {"cost_nano": None, "user_id": "ann"},
        call | dear | {"billing_scope": "USER"},
        call | dear | {"status": "BLOCKED", "cost_nano": 0},
        call | dear | {"org_id": "umbra"},
    )
    tried = json.loads(say("policy models try --org acme --allow gpt-4o-mini --json")[1])
    found = [
        (one["model"], one["verdict"], one["calls"], one["users"], one["cost_nano"], one["unpriced"])
        for one in tried["models"]
    ]
    assert found == [
        ("gpt-4o", "refused", 2, 2, 500_000_000, 0),
        ("us.anthropic.claude-sonnet-4-5-20250929-v1:0", "refused", 1, 1, 0, 1),
        ("gpt-4o-mini-2024-07-18", "allowed", 1, 1, 1, 0),
    ]
    code, out, _ = say("policy models try --org acme --allow gpt-4o-mini --downgrade-to gpt-4o-mini")
    # the other one is of a provider that does not sell the target: refused, as the guard does
    assert (code, "1 would have been refused, 2 downgraded" in " ".join(out.split())) == (0, True), out
    assert say("policy models list --org acme --json")[1] == "[]\n", "nothing is written"
    code, _, err = say("policy models try --org acme --scope group --name web --allow gpt-4o-mini")
    assert (code, "who was in a group then is not kept" in err) == (2, True)


def test_a_record_that_cannot_be_read_is_named_and_taken_away(say: Say, line_settings: Settings) -> None:
    key = "policy:acme/org//pool/USD"
    assert say("policy set --org acme --scope user --name ann --daily 1 --create")[0] == 0
    _reach(line_settings, _write(line_settings, [Change("acme", key.encode(), b'{"per_moon_phase": 1}')]))
    for command in (
        "policy list",
        "policy list --json",
        "policy export",
        "policy explain --org acme --user ann",
        "member list",
        "policy models list",
        "block list",
        "ratelimit list",
    ):
        code, _, err = say(command)
        told = " ".join(err.split())
        assert (code, key in told, "policy discard" in told) == (0, True, True), command
    assert "acme/user/ann" in say("policy list --json")[1]
    code, _, err = say("policy discard policy:acme/user/ann/pool/USD")
    assert (code, "can be read" in err) == (2, True)
    assert say("policy discard", key)[:2] == (0, f"{key} is gone\n")
    assert say("policy list")[2] == ""


def test_rules_about_models_are_set_listed_explained_and_deleted(say: Say, tmp_path: Path) -> None:
    ann = "--org acme --scope user --name ann"
    code, out, err = say(
        f"policy models set {ann} --allow OpenAI/GPT-4o-mini --allow our-own --downgrade-to gpt-4o-mini --create"
    )
    assert (code, "our-own" in err) == (0, True)
    assert "may use gpt-4o-mini, our-own; other models become gpt-4o-mini" in out
    assert json.loads(say("policy models list --org acme --json")[1]) == [
        {
            "rule": "models:acme/user/ann",
            "org_id": "acme",
            "scope": "user",
            "name": "ann",
            "allowed": ["gpt-4o-mini", "our-own"],
            "downgrade_to": "gpt-4o-mini",
        }
    ]
    assert say("member set --org acme --user ann --in web")[0] == 0
    assert say("policy models --org acme --scope group --name web --allow gpt-4.1")[0] == 0
    explained = json.loads(say("policy explain --org acme --user ann --model GPT-4o --json")[1])["models"]
    assert (explained["verdict"], explained["downgrade_to"]) == ("downgraded", "gpt-4o-mini")
    assert explained["lost"] == [{"rule": "models:acme/group/web", "reason": "own_rule"}]
    # anthropic sells no model of openai: refused, as the guard does
    other = json.loads(say("policy explain --org acme --user ann --provider anthropic --model claude-x --json")[1])
    assert other["models"]["verdict"] == "refused"
    text = say("policy explain --org acme --user bob --group web --model gpt-4o")[1]
    assert "model gpt-4o is refused by models:acme/group/web" in " ".join(text.split())
    for wrong, said in (
        ("--allow gpt-4o --downgrade-to o1", "o1 is not allowed itself"),
        ("", "--allow"),
    ):
        code, _, err = say(f"policy models set {ann} {wrong}")
        assert (code, said in err) == (2, True), err
    assert say("policy models set --org acme --scope user --name nobody-knows --allow gpt-4o")[0] == 2
    rules_travel_in_files(say, tmp_path)
    assert say(f"policy models delete {ann}")[0] == 0
    code, out, err = say(f"policy models delete {ann}")
    assert (code, "had no rule" in out + err) == (1, True)
