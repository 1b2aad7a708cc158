"""Derive `quantiles.csv` from the real traces: python -m tollmeter.traffic.derive FOLDER [OUTPUT].

FOLDER holds the published traces; the table keeps quantiles alone, no single call. Sources and licences stand in the
head of the table and travel with it.
"""

import csv
import gzip
import sys
from collections import defaultdict
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

LEVELS = (0, 1, 5, 10, 20, 30, 40, 50, 60, 70, 80, 90, 95, 98, 99, 100)
HEAD = """\
# Quantiles of LLM traffic, derived from published traces (python -m tollmeter.traffic.derive FOLDER). Sources:
# azure2023: Azure LLM inference trace 2023, github.com/Azure/AzurePublicDataset, CC-BY-4.0, cite arXiv:2311.18677
# mooncake_fast25: Mooncake FAST25 traces, github.com/kvcache-ai/Mooncake, Apache-2.0
# ragpulse: RAGPulse, github.com/flashserve/RAGPulse, MIT, arXiv:2511.12979
# vtc_arena: VTC (OSDI 24) replay of the LMSYS Arena trace, github.com/Ying1123/VTC-artifact, Apache-2.0
# servegen: ServeGen, github.com/alibaba/ServeGen, Apache-2.0, arXiv:2505.09999 (tokens: clients weighted alike)
# input_tokens, output_tokens: per call. cached_share: cached / input, with a cache that never expires.
# gap: time between two calls / its mean. client_share: a client's calls / mean calls of all clients.
# rank_correlation: Spearman's, input to output tokens, in the column p0.
"""


def quantiles(values: Floats) -> list[float]:
    return [float(value) for value in np.percentile(values, LEVELS)]


def rank_correlation(left: Floats, right: Floats) -> float:
    ranks = [np.argsort(np.argsort(values, kind="stable"), kind="stable") for values in (left, right)]
    return float(np.corrcoef(ranks[0], ranks[1])[0, 1])


def call_rows(folder: Path) -> Iterator[tuple[str, str, str, int, list[float]]]:
    """Yield (source, workload, field, rows, values) of the traces that hold single calls."""
    calls: dict[tuple[str, str], list[tuple[float, float, float, float]]] = defaultdict(list)
    with gzip.open(folder / "llm_usage_sample.csv.gz", "rt", newline="") as file:
        for row in csv.DictReader(file):
            at = datetime.fromisoformat(row["ts"]).timestamp()
            counts = (float(row[name] or 0) for name in ("input_tokens", "cached_input_tokens", "output_tokens"))
            calls[row["source"], row["workload"]].append((at, *counts))  # type: ignore[arg-type]
    for (source, workload), rows in sorted(calls.items()):
        at, input_, cached, output = np.array(sorted(rows)).T
        gaps = np.diff(at)
        yield source, workload, "input_tokens", len(rows), quantiles(input_)
        yield source, workload, "output_tokens", len(rows), quantiles(output)
        yield source, workload, "gap", len(gaps), quantiles(gaps / gaps.mean())
        yield source, workload, "rank_correlation", len(rows), [rank_correlation(input_, output)]
        if cached.any():
            yield source, workload, "cached_share", len(rows), quantiles(cached / np.maximum(input_, 1))


def client_rows(folder: Path) -> Iterator[tuple[str, str, str, int, list[float]]]:
    """Yield the same of ServeGen, which holds calls per client and token percentiles per client."""
    calls: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    with gzip.open(folder / "servegen" / "servegen_client_rate_10min.csv.gz", "rt", newline="") as file:
        for row in csv.DictReader(file):
            calls[row["category"]][f"{row['model']}/{row['client']}"] += float(row["requests_10min"])
    for category, clients in sorted(calls.items()):
        totals = np.array(list(clients.values()))
        yield "servegen", category, "client_share", len(totals), quantiles(totals / totals.mean())
    tokens: dict[tuple[str, str], list[Floats]] = defaultdict(list)
    with gzip.open(folder / "servegen" / "servegen_client_token_quantiles.csv.gz", "rt", newline="") as file:
        for row in csv.DictReader(file):
            known = [level for level in range(1, 101) if row.get(f"p{level}")]
            # The published levels are uneven: back to one point per percent, so that each weighs the same.
            points = np.interp(np.arange(1, 100), known, [float(row[f"p{level}"]) for level in known])
            tokens[row["category"], row["field"]].append(points)
    for (category, field), windows in sorted(tokens.items()):
        if field in ("input_tokens", "output_tokens"):
            yield "servegen", category, field, len(windows), quantiles(np.concatenate(windows))


def main(arguments: list[str]) -> int:
    """Write the table; exit 2 with one line when the folder is not one of traces."""
    if len(arguments) not in (1, 2):
        sys.stderr.write("usage: python -m tollmeter.traffic.derive FOLDER [OUTPUT]\n")
        return 2
    folder = Path(arguments[0])
    target = Path(arguments[1]) if len(arguments) == 2 else Path(__file__).with_name("quantiles.csv")
    try:
        rows = [*call_rows(folder), *client_rows(folder)]
    except FileNotFoundError as missing:
        sys.stderr.write(f"derive: {missing.filename} is missing: FOLDER must hold the published traces\n")
        return 2
    with target.open("w", newline="", encoding="utf-8") as file:
        file.write(HEAD)
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["source", "workload", "field", "rows", *(f"p{level}" for level in LEVELS)])
        for source, workload, field, count, values in rows:
            writer.writerow([source, workload, field, count, *(f"{value:.6g}" for value in values)])
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
