"""Whatever is typed, a wrong line is answered by one line and exit code 2, before anything is reached."""

import shlex

import pytest

from tollmeter.cli.root import run

LINES = """
generate --rate 1e308
generate --rate nan
generate --poison nan
dlq retry --all --rate nan
probe ollama --timeout nan
generate --start 9999-12-31
generate --events 99999999999999999999
policy set --org a --daily 1e400
policy set --org a --daily nan
policy set --org a --daily inf
policy set --org a --rolling 24=NaN
policy set --org a --rolling =5
policy set --org a --limit =
policy set --org a --daily 1 --warn-pct 99999999999
policy set --org a --daily 1 --alert-pct 0
policy set --org a --daily 1 --timezone ../../etc/passwd
block key k --for 99999999999999d
block key ""
block ip 1.2.3.4/99
block ip ::1%lo
ratelimit set ip --requests 99999999999999999999 --per 1m
ratelimit set key k --requests 1 --per 0s
alerts follow --limit 0
alerts follow --from-start --last 3
alerts mute --for 99999999d --kind x
correct x --void
import /nonexistent
import /tmp
export --day 0000-00-00
export --day 2026-11-22T10:00
export --month 9999-12
export --day 2026-11-22 --until 2026-11-23
dlq show x
dlq retry
dlq list --until 0001-01-01
report calls --top 99999999999
report calls --zone ""
report calls --zone Europe
report calls --since ""
report calls --month 2026-00
report spend --by model,,key
report reported --top 0
report budget --scope nothing
verify --wait 99999999d
worker nothing
worker price --health-port 99999
notify --routes /nonexistent
probe ollama --url "http://[::1"
prices show gpt-4o --at 0001-01-01
member set --org a --user u --in ""
member import /tmp
policy import /tmp
send --model x --in -1
send --model x --images 0
"""


@pytest.mark.parametrize("line", LINES.strip().splitlines())
def test_a_wrong_line_is_answered_by_one_line(
    line: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOLLMETER_KAFKA", "127.0.0.1:1")
    monkeypatch.setenv("TOLLMETER_CLICKHOUSE", "http://127.0.0.1:1")
    assert run(shlex.split(line)) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("tollmeter: ")
    assert said.err.count("\n") == 1
