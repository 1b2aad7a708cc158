"""Whatever is wrong in a bill's file, it is read or refused in one line: no reader fails in another way."""

import copy
import io
import json
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from tests.effort import examples
from tests.unit.test_bill_files import CUR, _bucket, table
from tests.unit.test_bill_tables import AZURE, GOOGLE, PLAIN, WORDS
from tollmeter.admin.bills import mapped
from tollmeter.admin.bills.reading import read
from tollmeter.streams.rules.bills.lines import BillError

LONGEST = 400


def _page(*results: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"object": "page", "data": [_bucket() | {"results": list(results)}], "has_more": False, **more}


def _report(**result: Any) -> dict[str, Any]:
    span = {"starting_at": "2026-11-03T00:00:00Z", "ending_at": "2026-11-04T00:00:00Z"}
    return {"data": [span | {"results": [result]}], "has_more": False, "next_page": None}


DOCUMENTS: tuple[Any, ...] = (
    _page(_bucket()["results"][0] | {"line_item": "gpt-4o, input", "quantity": 10, "quantity_unit": "tokens"}),
    _page(
        {
            "object": "organization.usage.completions.result",
            "input_tokens": 10,
            "input_cached_tokens": 2,
            "output_tokens": 5,
            "num_model_requests": 2,
            "api_key_id": "k",
        },
        next_page=None,
    ),
    _report(amount="123.45", currency="USD", cost_type="tokens", token_type="output_tokens", model="c"),
    _report(
        uncached_input_tokens=1,
        cache_creation={"ephemeral_5m_input_tokens": 2},
        cache_read_input_tokens=4,
        output_tokens=5,
        server_tool_use={"web_search_requests": 1},
    ),
    {
        "data": [
            {
                "date": "2026-11-03",
                "model": "m",
                "usage": 1.2,
                "byok_usage_inference": 0.1,
                "requests": 2,
                "prompt_tokens": 3,
                "completion_tokens": 4,
            }
        ]
    },
    [GOOGLE | {"credits": [{"amount": -0.1}], "usage": {"amount": 3, "unit": "count"}, "currency_conversion_rate": 1}],
)
TABLES = (
    [AZURE, AZURE],
    [CUR, CUR],
    [{name: json.dumps(value) if isinstance(value, dict) else value for name, value in GOOGLE.items()}],
)
JUNK: tuple[Any, ...] = (
    *(None, True, 0, -1, 1.5, "", "x", "1,5", "NaN", [], {}, [1], [None], [[]], {"a": 1}, {"error": "x"}),
    *(10**30, -(10**30), 1e308, "1e400", "9" * 5_000, "٣", "1_000", "2026-13-01", "\x00", "=1+1", "\r\n"),
)


def places(document: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the way to each value inside."""
    items = document.items() if isinstance(document, dict) else enumerate(document)
    for name, value in items:
        yield (*path, name)
        if isinstance(value, dict | list):
            yield from places(value, (*path, name))


def damaged(rng: random.Random, document: Any) -> Any:
    """Return a document with a value or two changed, taken out or there twice."""
    made = copy.deepcopy(document)
    for _ in range(rng.choice((1, 1, 2))):
        inside = made
        *way, name = rng.choice(list(places(made)) or [(None,)])
        if name is None:
            return made
        for step in way:
            inside = inside[step]
        what = rng.random()
        if what < 0.2:
            del inside[name]
        elif what < 0.35 and isinstance(inside, list):
            inside.append(copy.deepcopy(inside[name]))
        else:
            inside[name] = copy.deepcopy(rng.choice(JUNK))
    return made


def written(rng: random.Random) -> tuple[bytes, mapped.Columns | None]:
    """Return a file of any provider, most of them with something wrong, and how it is read."""
    form = rng.random()
    if form < 0.6:
        content, columns = json.dumps(damaged(rng, rng.choice(DOCUMENTS))).encode(), None
    elif form < 0.85:
        rows = [dict(row) for row in rng.choice(TABLES)]
        for row in rows:
            row[rng.choice(list(row))] = rng.choice(JUNK)
        content, columns = table(rows).encode(), None
    elif form < 0.9:
        content, columns = _parquet(rng), None
    else:
        cells = PLAIN.replace(*rng.choice((("1.50", str(rng.choice(JUNK))), ("2026-11-03", str(rng.choice(JUNK))))))
        decimal = rng.choice(("", "comma", "point"))
        content, columns = cells.encode(), mapped.mapping(WORDS, decimal=decimal)
    if rng.random() < 0.1:
        content = content[: rng.randrange(len(content) + 1)]
    if content and rng.random() < 0.1:
        at = rng.randrange(len(content))
        content = content[:at] + bytes([rng.randrange(256)]) + content[at + 1 :]
    return content, columns


def _parquet(rng: random.Random) -> bytes:
    row = {
        name: rng.choice((None, value, 1, "x", 1.5, True)) if rng.random() < 0.1 else value
        for name, value in CUR.items()
    }
    out = io.BytesIO()
    pl.DataFrame([row]).write_parquet(out)
    return out.getvalue()


@pytest.mark.parametrize("seed", range(4))
def test_a_broken_file_is_read_or_refused_in_a_line(tmp_path: Path, seed: int) -> None:
    rng, seen = random.Random(f"readers-{seed}"), Counter[str]()
    file = tmp_path / "bill"
    for _ in range(examples(500)):
        content, columns = written(rng)
        file.write_bytes(content)
        try:
            bill = read([file], "mistral" if columns else "", columns)
        except BillError as refused:
            said = str(refused)
            assert 0 < len(said) <= LONGEST
            assert said.isprintable(), said
            seen["refused"] += 1
        else:
            assert bill.days
            assert all(line.amount is None or line.amount.is_finite() for line in bill.lines)
            seen["read"] += 1
    assert min(seen["refused"], seen["read"]) > 50, seen
