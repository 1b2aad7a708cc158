"""Wrong command lines about policies and members: one clear line each, exit code 2, before anything is reached."""

import pytest

from tollmeter.cli.root import run

NO_DELETE = "cannot delete org policy: take its limits away, tollmeter policy set"
USER = "policy set --org acme --scope user --name ann"
NO_LIMIT = "a policy needs a limit: give --daily, --monthly or another one, or --no-limits alone"
LINES = [
    (USER, NO_LIMIT),
    (f"{USER} --daily 5 --no-limits", NO_LIMIT),
    (f"{USER} --limit day/tokens=1.5", "--limit day/tokens: '1.5' must be a whole number above 0"),
    ("policy delete --org acme", f"{NO_DELETE} --org acme --no-limits"),
    ("policy delete --org acme --scope org --currency EUR", f"{NO_DELETE} --org acme --no-limits"),
    (f"{USER} --weekly five", "--weekly: 'five' is not an amount; write for example 25 or 0.5"),
    (f"{USER} --rolling 24", "--rolling 24: write HOURS=AMOUNT, for example 24=5"),
    (f"{USER} --rolling 24=x", "--limit rolling24h/money: 'x' is not an amount; write for example 25 or 0.5"),
    (f"{USER} --limit day/tokens", "--limit day/tokens: write KIND=AMOUNT, for example day/tokens=1000000"),
    (
        f"{USER} --limit year/money=1",
        "'year/money' is no limit: write day, week, month or rolling24h, a slash, and money, tokens or requests",
    ),
    (f"{USER} --daily 5 --limit day/money=6", "two limits of day/money: give one"),
    (f"{USER} --daily 5 --warn-pct 500", "--warn-pct: Input should be less than or equal to 100"),
    (f"{USER} --daily 5 --currency GBP", "Invalid value for '--currency': 'GBP' is not one of 'USD', 'EUR', 'RUB'."),
    (
        f"{USER} --daily 5 --timezone Mars/Olympus",
        "--timezone: unknown time zone 'Mars/Olympus': write for example UTC or Europe/Berlin",
    ),
    (f"{USER} --daily 5 --applies each_member", "each_member needs members: a user has none; use pool"),
    (f"{USER} --daily 5 --alert-remaining -1", "--alert-remaining: -1 must be above 0 and have at most six decimals"),
    (f"{USER} --daily 9999999999999", "--daily: Input should be less than or equal to 1000000000000000"),
    (
        "policy set --org acme --scope user --daily 5",
        "name says which group, user, key ...: it is empty for scope org, and for no other but a default (each_member)",
    ),
    ("policy set --org acme --scope tag --name blue --daily 5", "the name of a tag scope is key=value"),
    ("policy explain --org acme --tag blue", "--tag blue: write KEY=VALUE"),
    ("member set --org acme", "say who: give --user or --group"),
    ("member set --org acme --user ann --group web", "say who: give --user or --group"),
    ("member set --org acme --group web --in web", "group web contains itself"),
    ("policy import none.yaml", "none.yaml: cannot be read: No such file or directory"),
    ("member import none.csv", "none.csv: cannot be read: No such file or directory"),
]


@pytest.mark.parametrize(("line", "said"), LINES, ids=[line for line, _ in LINES])
def test_a_wrong_line(line: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(line.split()) == 2
    assert capsys.readouterr() == ("", f"tollmeter: {said}\n")
