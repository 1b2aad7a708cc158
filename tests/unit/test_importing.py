"""Import: every shape of input gives the same events, a bad entry is named and costs nothing else, ids are stable."""

import csv
import gzip
import io
import json
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tollmeter.producers.imports.imports import Import, Report, events
from tollmeter.producers.imports.readers import Bad, UnreadableError, nested, read
from tollmeter.schemas.event import UsageEvent
from tollmeter.traffic import sample

LINE = {
    "t": "openai_usage",
    "severity": "INFO",
    "request_id": "r-1",
    "client_ip": "203.0.113.7",
    "model_sent": "gpt-4o",
    "model_used": "gpt-4o-2024-08-06",
    "prompt_chars": 4100,
    "usage": {"prompt_tokens": 1000, "output_tokens": 200},
    "est_cost": 0.0045,
    "api_key_id": "0a1b2c3d",
    "timestamp": "2026-11-22T10:00:00.5Z",
}


def line(number: int) -> dict:
    return {**LINE, "request_id": f"r-{number}"}


def entry(number: int) -> dict:
    return {"insertId": f"i{number}", "jsonPayload": line(number), "timestamp": LINE["timestamp"], "severity": "INFO"}


def as_csv(entries: list[dict]) -> bytes:
    rows = [
        {
            "insertId": e["insertId"],
            "timestamp": e["timestamp"],
            "severity": e["severity"],
            "labels.zone": "",
            **{f"jsonPayload.{k}": v for k, v in e["jsonPayload"].items() if k != "usage"},
            **{f"jsonPayload.usage.{k}": v for k, v in e["jsonPayload"]["usage"].items()},
        }
        for e in entries
    ]
    out = io.StringIO()
    writer = csv.DictWriter(out, rows[0].keys())
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue().encode()


SHAPES: dict[str, Callable[[], bytes]] = {
    "lines": lambda: b"\n".join(json.dumps(line(n)).encode() for n in range(3)),
    "lines with BOM, blanks and CRLF": lambda: b"\xef\xbb\xbf" + SHAPES["lines"]().replace(b"\n", b"\r\n\r\n"),
    "entries as lines": lambda: b"\n".join(json.dumps(entry(n)).encode() for n in range(3)),
    "entries as array": lambda: json.dumps([entry(n) for n in range(3)]).encode(),
    "entries as indented array": lambda: json.dumps([entry(n) for n in range(3)], indent=2).encode(),
    "entries as CSV": lambda: as_csv([entry(n) for n in range(3)]),
}


def imported(tmp_path: Path, data: bytes, **options: object) -> tuple[list[UsageEvent], Report]:
    file = tmp_path / "input"
    file.write_bytes(data)
    report = Report()
    return [event for _, event in events(Import(str(file), traces=sample, **options), report)], report  # type: ignore[arg-type]


@pytest.mark.parametrize("zipped", [False, True], ids=["plain", "gzipped"])
@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_gives_the_same_events(tmp_path: Path, shape: str, zipped: bool) -> None:
    data = SHAPES[shape]()
    found, report = imported(tmp_path, gzip.compress(data) if zipped else data)
    assert (report.read, report.events, report.skipped, report.bad) == (3, 3, 0, 0)
    assert [event.request_id for event in found] == ["r-0", "r-1", "r-2"]
    for event in found:
        assert (event.input_tokens, event.output_tokens, event.prompt_chars) == (1000, 200, 4100)
        assert event.reported_cost_nano == 4_500_000
        assert event.occurred_at == datetime(2026, 11, 22, 10, 0, 0, 500_000, tzinfo=UTC)
        assert event.client_ip == "203.0.113.7"


@pytest.mark.parametrize("at", [1_795_341_600.5, 1_795_341_600_500, "1795341600500000", 1_795_341_600_500_000_000])
def test_a_number_is_a_time_by_its_size(tmp_path: Path, at: object) -> None:
    (found,), _ = imported(tmp_path, json.dumps({**LINE, "timestamp": at}).encode())
    assert found.occurred_at == datetime(2026, 11, 22, 10, 0, 0, 500_000, tzinfo=UTC)


def test_ids_are_the_same_each_time_and_by_insert_id(tmp_path: Path) -> None:
    array, _ = imported(tmp_path, SHAPES["entries as array"]())
    again, _ = imported(tmp_path, SHAPES["entries as CSV"]())
    assert [event.event_id for event in array] == [event.event_id for event in again]
    assert len({event.event_id for event in array}) == 3


def test_organisation_is_given(tmp_path: Path) -> None:
    found, _ = imported(tmp_path, SHAPES["lines"](), org="acme")
    assert {event.org_id for event in found} == {"acme"}


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (b"{broken", "not JSON"),
        (b'{"t":"openai_usage","\xff":1}', "not UTF-8"),
        (b"[" * 100_000, "not JSON"),
        (b"42", "not a JSON object"),
        (json.dumps({**LINE, "timestamp": "yesterday"}).encode(), "timestamp"),
        (json.dumps({**LINE, "timestamp": 12}).encode(), "timestamp: 12 is no time between 2001 and 2100"),
        (json.dumps({**LINE, "timestamp": True}).encode(), "timestamp: bool, neither text nor a number"),
        (json.dumps({**LINE, "usage": {"prompt_tokens": -1, "output_tokens": 2}}).encode(), "input_tokens"),
        (json.dumps({**LINE, "usage": {"prompt_tokens": 1.5, "output_tokens": 2}}).encode(), "usage.prompt_tokens"),
    ],
    ids=["broken", "not UTF-8", "deep", "number", "time", "small time", "no time", "negative", "fraction"],
)
def test_bad_line_is_named_and_its_neighbours_are_in(tmp_path: Path, bad: bytes, reason: str) -> None:
    good = [json.dumps(line(n)).encode() for n in range(2)]
    found, report = imported(tmp_path, b"\n".join([good[0], bad, good[1]]))
    assert [event.request_id for event in found] == ["r-0", "r-1"]
    assert (report.read, report.events, report.bad) == (3, 2, 1)
    assert report.first_bad[0].place == "line 2"
    assert reason in report.first_bad[0].reason
    assert "\n" not in report.first_bad[0].reason


def test_a_cost_that_is_no_amount_costs_the_entry_nothing_else(tmp_path: Path) -> None:
    lines = [{**line(number), "est_cost": cost} for number, cost in enumerate(["n/a", "$0.01", "NaN", 0.5, None])]
    for data in (
        b"\n".join(json.dumps(one).encode() for one in lines),
        as_csv([{**entry(0), "jsonPayload": lines[0]}]),
    ):
        found, report = imported(tmp_path, data)
        assert {(event.input_tokens, event.output_tokens) for event in found} == {(1_000, 200)}
        assert (report.bad, report.cost_unread) == (0, 3 if len(found) == 5 else 1)
        assert "est_cost: 'n/a' is not an amount" in report.first_unread[0].reason


def test_a_pipe_is_read(tmp_path: Path) -> None:
    """In a process of its own, as `cat FILE | tollmeter import -` runs: nothing about a pipe can be sought."""
    program = (
        "from tollmeter.producers.imports.imports import Import, Report, events\n"
        "told = []\n"
        "found = list(events(Import('-'), Report(), told.append))\n"
        "print(*(event.request_id for _, event in found), told)"
    )
    for data in (SHAPES["lines"](), SHAPES["entries as array"](), SHAPES["entries as CSV"]()):
        for sent in (data, gzip.compress(data)):
            ran = subprocess.run([sys.executable, "-c", program], input=sent, capture_output=True, check=False)
            assert ran.stdout.decode().split("\n")[0] == "r-0 r-1 r-2 []", ran.stderr.decode()


def test_first_five_bad_lines_are_kept(tmp_path: Path) -> None:
    _, report = imported(tmp_path, b"{}\n" + b"{x\n" * 9)
    assert report.bad == 9
    assert [bad.place for bad in report.first_bad] == [f"line {n}" for n in range(2, 7)]


def test_other_log_records_are_skipped(tmp_path: Path) -> None:
    other = [{"t": "http", "status": 200}, {"message": "started"}, {"jsonPayload": {"t": "cron"}, "insertId": "x"}]
    found, report = imported(tmp_path, b"\n".join(json.dumps(o).encode() for o in [*other, line(1)]))
    assert len(found) == 1
    assert (report.read, report.events, report.skipped, report.bad) == (4, 1, 3, 0)


def test_cut_array_gives_what_it_has(tmp_path: Path) -> None:
    data = json.dumps([entry(n) for n in range(3)]).encode()
    found, report = imported(tmp_path, data[:-20])
    assert [event.request_id for event in found] == ["r-0", "r-1"]
    assert report.first_bad[0].place == "element 3"


def test_array_longer_than_a_chunk(tmp_path: Path) -> None:
    entries = [entry(n) for n in range(6_000)]
    found, report = imported(tmp_path, json.dumps(entries).encode())
    assert report.bad == 0
    assert [event.request_id for event in found] == [f"r-{n}" for n in range(6_000)]


def test_csv_row_of_another_width_is_named(tmp_path: Path) -> None:
    data = as_csv([entry(0), entry(1)]).splitlines(keepends=True)
    found, report = imported(tmp_path, b"".join([data[0], data[1], b"only,two\r\n", data[2]]))
    assert len(found) == 2
    assert report.first_bad == [Bad("line 3", f"2 columns, the head has {len(data[0].split(b','))}")]


def test_empty_input(tmp_path: Path) -> None:
    found, report = imported(tmp_path, b"")
    assert (found, report.read) == ([], 0)


def test_absent_and_truncated_files_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(UnreadableError, match="No such file"):
        list(read(str(tmp_path / "absent")))
    cut = tmp_path / "cut.gz"
    cut.write_bytes(gzip.compress(b"\n".join(json.dumps(line(n)).encode() for n in range(999)))[:-30])
    with pytest.raises(UnreadableError, match="cannot be read"):
        list(read(str(cut)))


def test_dotted_columns_nest() -> None:
    assert nested({"a.b.c": "1", "a.d": "2", "e": "", "f": "3"}) == {"a": {"b": {"c": "1"}, "d": "2"}, "f": "3"}
    assert nested({"a": "1", "a.b": "2"}) == {"a": "1"}


SAMPLE = (
    "source,workload,ts,client,session,input_tokens,cached_input_tokens,output_tokens,body_hash\n"
    "azure2023,code,2023-11-16T18:17:03.979960Z,,,4808,0,10,\n"
    "mooncake_fast25,conversation,2024-01-01T00:39:48.000000Z,,,1253,512,326,7666d9717e0a\n"
    "vtc_arena,chat,2023-06-01T00:10:00Z,c3,,28,0,513,\n"
)


def test_sample_rows_get_everything_else_from_the_seed(tmp_path: Path) -> None:
    one, report = imported(tmp_path, SAMPLE.encode(), seed=1)
    same, _ = imported(tmp_path, SAMPLE.encode(), seed=1)
    other, _ = imported(tmp_path, SAMPLE.encode(), seed=2)
    assert one == same
    assert report.assigned
    assert not {e.event_id for e in one} & {e.event_id for e in other}
    assert [(e.input_tokens, e.output_tokens) for e in one] == [(4808, 10), (1253, 326), (28, 513)]
    assert all(e.org_id and e.api_key_id and e.model_used and e.client_ip for e in one)


def test_bad_sample_row_is_named(tmp_path: Path) -> None:
    data = SAMPLE.replace("4808", "many").replace("2024-01-01T00:39:48.000000Z", "soon")
    found, report = imported(tmp_path, data.encode())
    assert len(found) == 1
    assert [bad.place for bad in report.first_bad] == ["line 2", "line 3"]
    assert "input_tokens" in report.first_bad[0].reason


def test_each_trace_of_the_sample_is_moved_by_its_own_span(tmp_path: Path) -> None:
    from tollmeter.producers.imports.imports import _last_times, _moved

    file = tmp_path / "sample.csv"
    file.write_text(SAMPLE)
    now = datetime(2026, 11, 22, 12, tzinfo=UTC)
    last = _last_times(Import(str(file), traces=sample))
    assert set(last) == {"azure2023/code", "mooncake_fast25/conversation", "vtc_arena/chat"}
    event = next(
        event for trace, event in events(Import(str(file), traces=sample), Report()) if trace == "vtc_arena/chat"
    )
    moved = _moved(event, now - last["vtc_arena/chat"])
    assert moved.occurred_at == now
    assert moved.event_id != event.event_id
    assert _moved(event, timedelta(0)) == event
