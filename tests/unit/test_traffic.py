"""The company of the generator: what it covers, what its leaks do, and that the table says where it comes from."""

import os
from collections import Counter, defaultdict
from importlib import resources
from pathlib import Path

import numpy as np
import pytest

from tollmeter.schemas.topics import org_partition
from tollmeter.traffic import derive
from tollmeter.traffic.calls import OUTCOMES, Traffic
from tollmeter.traffic.company import company, org_names
from tollmeter.traffic.fields import fields_of
from tollmeter.traffic.stream import Wire
from tollmeter.traffic.table import TABLE, WORKLOADS

START = 1_790_000_000_000_000
HALF_HOUR = 1_800_000_000
EVENTS = 20_000


@pytest.mark.parametrize(("orgs", "partitions"), [(4, 4), (8, 4), (8, 8), (16, 8)])
def test_organisations_cover_every_partition(orgs: int, partitions: int) -> None:
    assert {org_partition(name, partitions) for name in org_names(orgs)} == set(range(partitions))


@pytest.fixture
def traces() -> Path:
    folder = os.environ.get("TOLLMETER_TRACES")
    if not folder:
        pytest.skip("no trace folder: set TOLLMETER_TRACES")
    return Path(folder)


def fields(leak: str = "both", events: int = EVENTS) -> list[dict]:
    wire = Wire(company(5), events, START, HALF_HOUR, leak)
    return [f for calls in wire.traffic.blocks() for f in fields_of(wire.company, calls)]


@pytest.fixture(scope="module")
def sample() -> list[dict]:
    return fields()


def share(rows: list[dict], **wanted: object) -> float:
    return sum(all(row[k] == v for k, v in wanted.items()) for row in rows) / len(rows)


def test_shares_of_the_mixture(sample: list[dict]) -> None:
    assert 0.015 < share(sample, status="ERROR") < 0.03
    assert 0.003 < share(sample, status="CANCELLED") < 0.02
    assert 0 < share(sample, status="BLOCKED") < 0.006
    assert 0.005 < share(sample, billing_scope="USER") < 0.15
    assert 0.01 < share(sample, processing="BATCH") < 0.1
    unknown = share(sample, model_sent="gpt-nightly-canary") + share(sample, model_sent="inhouse-distill-7b")
    assert 0.001 < unknown < 0.006
    assert share(sample, provider="ollama") > 0
    assert share(sample, operation="image") > 0
    cached = sum(row["cache_read_tokens"] for row in sample) / sum(row["input_tokens"] for row in sample)
    assert 0.03 < cached < 0.5
    assert {"openai", "anthropic", "google", "deepseek", "mistral", "ollama"} == {row["provider"] for row in sample}
    assert "" in {row["client_ip"] for row in sample}


def test_failed_calls_have_no_usage(sample: list[dict]) -> None:
    for row in sample:
        outcome = next(o for o in OUTCOMES if (o.status, o.error_type) == (row["status"], row["error_type"]))
        if not outcome.usage:
            assert row["input_tokens"] == row["output_tokens"] == row["cache_read_tokens"] == 0


def test_leaks_come_last_and_old_keys_have_a_past() -> None:
    drawn = company(5)
    traffic = Traffic(drawn, EVENTS, START, HALF_HOUR, drawn.leaks)
    first: dict[str, int] = {}
    leaked: dict[int, list[int]] = defaultdict(list)
    leaking = {leak.caller for leak in drawn.leaks}
    for calls in traffic.blocks():
        for at, caller in zip(calls.at_us.tolist(), calls.caller.tolist(), strict=True):
            first.setdefault(drawn.callers[caller].key, at)
            if caller in leaking:
                leaked[caller].append(at)
    for leak in drawn.leaks:
        times = leaked[leak.caller]
        assert len(times) == traffic.leak_calls == 40
        assert min(times) >= START + HALF_HOUR * 0.6
        key = drawn.callers[leak.caller].key
        assert (first[key] < START + HALF_HOUR / 10) == leak.past


def test_ingest_loop_is_a_million_input_tokens_and_no_output(sample: list[dict]) -> None:
    loops = [row for row in sample if row["agent"] == "crawler"]
    for key in {row["api_key_id"] for row in loops}:
        rows = [row for row in loops if row["api_key_id"] == key]
        read, written = sum(r["input_tokens"] for r in rows), sum(r["output_tokens"] for r in rows)
        assert read > 1_000_000
        assert read / max(written, 1) > 200


def test_leaks_follow_the_request() -> None:
    drawn = company(5)
    kinds = {leak: Wire(drawn, 100, START, 1, leak).leaks for leak in ("none", "new", "old", "both")}
    assert kinds["none"] == ()
    assert [leak.past for leak in kinds["new"] if leak.kind != "over_budget"] == [False, False]
    assert [leak.past for leak in kinds["old"] if leak.kind != "over_budget"] == [True, True]
    assert Counter(leak.kind for leak in kinds["both"]) == {"spend_burst": 2, "ingest_loop": 2, "over_budget": 1}


def test_tokens_follow_the_table() -> None:
    rows = [f for f in fields("none") if f["feature"] == "complete" and f["status"] == "OK"]
    for level in (0.3, 0.5, 0.8):
        expected = TABLE.draw_one("azure2023", "code", "input_tokens", level)
        assert np.quantile([row["input_tokens"] for row in rows], level) == pytest.approx(expected, rel=0.15)


def test_table_names_sources_and_licences() -> None:
    head = (resources.files("tollmeter.traffic") / "quantiles.csv").read_text().split("source,workload")[0]
    for word in (
        "azure2023",
        "CC-BY-4.0",
        "2311.18677",
        "Mooncake",
        "Apache-2.0",
        "RAGPulse",
        "MIT",
        "VTC",
        "ServeGen",
    ):
        assert word in head
    for workload in WORKLOADS:
        if workload.fixed is None:
            assert (workload.source, workload.trace, "input_tokens") in TABLE.values


def test_table_is_what_the_traces_give(traces: Path, tmp_path: Path) -> None:
    assert derive.main([str(traces), str(tmp_path / "again.csv")]) == 0
    assert (tmp_path / "again.csv").read_text() == (resources.files("tollmeter.traffic") / "quantiles.csv").read_text()


@pytest.mark.parametrize("arguments", [[], ["/nowhere"]])
def test_derive_says_what_is_missing(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert derive.main(arguments) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
