"""Rate files of the ECB and the Bank of Russia: what the banks publish, what is broken, and that a day's rate stays."""

import json
from collections.abc import Callable, Iterator
from datetime import date, datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from polars import DataFrame

from tollmeter.cli.root import run
from tollmeter.settings import Settings
from tollmeter.streams.price.book.book import load
from tollmeter.streams.price.book.fx import COLUMNS, FxError
from tollmeter.streams.price.book.fx_banks import fetch_bank, merge, read_bank, store
from tollmeter.streams.price.book.fx_history import RateFile, load_rates, shipped_cells
from tollmeter.streams.price.stage import PriceKernel

ECB_SOURCE, RUSSIAN_SOURCE = "European Central Bank reference rate", "Bank of Russia official rate"
ECB_XML = """<?xml version="1.0" encoding="UTF-8"?>
<gesmes:Envelope xmlns:gesmes="http://www.gesmes.org/xml/2002-08-01" xmlns="http://www.ecb.int/vocabulary/2002-08-01/eurofxref">
  <gesmes:subject>Reference rates</gesmes:subject>
  <Cube>
    <Cube time="2026-11-20"><Cube currency="USD" rate="1.1527"/><Cube currency="JPY" rate="181.34"/></Cube>
    <Cube time="2026-11-19"><Cube currency="JPY" rate="180.10"/><Cube currency="USD" rate="1.1583"/></Cube>
  </Cube>
</gesmes:Envelope>"""
RUSSIAN_DAY = """<?xml version="1.0" encoding="windows-1251"?>
<ValCurs Date="21.11.2026" name="Foreign Currency Market">
<Valute ID="R01235"><NumCode>840</NumCode><CharCode>USD</CharCode><Nominal>1</Nominal><Name>Доллар США</Name>
<Value>81,1308</Value><VunitRate>81,1308</VunitRate></Valute>
<Valute ID="R01239"><NumCode>978</NumCode><CharCode>EUR</CharCode><Nominal>1</Nominal><Name>Евро</Name>
<Value>94,0122</Value><VunitRate>94,0122</VunitRate></Valute>
</ValCurs>""".encode("windows-1251")
RUSSIAN_DAYS = b"""<?xml version="1.0" encoding="windows-1251"?>
<ValCurs ID="R01235" DateRange1="19.11.2026" DateRange2="20.11.2026" name="Foreign Currency Market Dynamic">
<Record Date="19.11.2026" Id="R01235"><Nominal>10</Nominal><Value>811,3080</Value></Record>
<Record Date="20.11.2026" Id="R01239"><Nominal>1</Nominal><Value>94,0000</Value></Record>
</ValCurs>"""
GOOD = {
    "eurofxref-daily.xml": (ECB_XML, [("2026-11-20", "EUR", "1.1527", ""), ("2026-11-19", "EUR", "1.1583", "")]),
    "eurofxref.csv": ("Date, USD, JPY, \n20 November 2026, 1.1527, 181.34, \n", [("2026-11-20", "EUR", "1.1527", "")]),
    "eurofxref-hist.csv": (
        "Date,JPY,USD,\n2026-11-20,181.34,1.1527,\n2026-11-19,N/A,N/A,\n\n2026-11-18,1,1.1,\n",
        [("2026-11-20", "EUR", "1.1527", ""), ("2026-11-18", "EUR", "1.1", "")],
    ),
    "XML_daily.asp": (RUSSIAN_DAY, [("2026-11-21", "RUB", "", "81.1308")]),
    "XML_dynamic.asp": (RUSSIAN_DAYS, [("2026-11-19", "RUB", "", "81.1308")]),
}


def written(file: Path, body: str | bytes) -> Path:
    file.write_bytes(body.encode() if isinstance(body, str) else body)
    return file


@pytest.mark.parametrize("name", GOOD)
def test_what_the_banks_publish(tmp_path: Path, name: str) -> None:
    body, expected = GOOD[name]
    rows = read_bank(written(tmp_path / name, body))
    source = {"EUR": ECB_SOURCE, "RUB": RUSSIAN_SOURCE}
    assert rows == [(*cells, source[cells[1]]) for cells in expected]


BROKEN = [
    ("", "is no file of rates: expected eurofxref.csv"),
    ("day,USD\n", "is no file of rates: expected eurofxref.csv"),
    ("Date,JPY\n2026-11-20,1\n", "is no file of rates: expected eurofxref.csv"),
    ("Date,USD\n2026-11-20\n", "line 2: 1 columns; expected at least 2"),
    ("Date,USD\n11/20/2026,1\n", "line 2: '11/20/2026' is no date"),
    ("Date,USD\n2026-11-20,-1\n", "usd_per_unit: -1 is no rate"),
    ("Date,USD\n2026-11-20,x\n", "usd_per_unit: 'x' is no number"),
    ("Date,USD\n2026-11-20,N/A\n", "holds no rate of the US dollar"),
    (b"\xff\xfeDate", "is no file of rates: 'utf-8' codec can't decode"),
    ("<ValCurs", "is no valid XML: unclosed token"),
    ("<html><body>try later</body></html>", "is no file of rates: it begins with <html>"),
    ('<!DOCTYPE a [<!ENTITY b "c">]><ValCurs/>', "banks' files declare no document type"),
    ("<ValCurs Date='21.11.2026'/>", "holds no rate of the US dollar"),
    (RUSSIAN_DAY.replace(b"81,1308</Value>", b"</Value>"), "21.11.2026: '' for '1' USD is no rate"),
    (RUSSIAN_DAY.replace(b"<Nominal>1", b"<Nominal>0"), "21.11.2026: '81.1308' for '0' USD is no rate"),
    (RUSSIAN_DAY.replace(b"21.11.2026", b"2026-11-21"), "Date: '2026-11-21' is no date"),
    (ECB_XML.replace('rate="1.1527"', ""), "usd_per_unit, units_per_usd: give exactly one of the two"),
]


@pytest.mark.parametrize(("body", "said"), BROKEN, ids=[said[:50] for _, said in BROKEN])
def test_a_broken_file_is_one_line_and_no_rate(tmp_path: Path, body: str | bytes, said: str) -> None:
    file = written(tmp_path / "rates", body)
    with pytest.raises(FxError) as wrong:
        read_bank(file)
    assert str(wrong.value).startswith(f"{file}: ")
    assert said in str(wrong.value)
    assert "\n" not in str(wrong.value)


def test_a_currency_begins_with_its_shipped_rates_and_a_day_s_rate_stays(tmp_path: Path) -> None:
    own, shipped = tmp_path / "fx.csv", shipped_cells()
    ecb = read_bank(written(tmp_path / "e.xml", ECB_XML))
    merged = merge(own, [*ecb, *read_bank(written(tmp_path / "r.xml", RUSSIAN_DAY))], shipped)
    assert (merged.added, merged.known, merged.conflicts) == (3, 0, ())
    store(own, merged.cells)
    before = own.read_text()
    assert [(rate.day, rate.currency, rate.per_usd_nano) for rate in load_rates(str(own))[-3:]] == [
        (date(2026, 11, 19), "EUR", 863_334_197),  # 1 / 1.1583
        (date(2026, 11, 20), "EUR", 867_528_412),
        (date(2026, 11, 21), "RUB", 81_130_800_000),
    ]
    other = [("2026-11-20", "EUR", "9.9999", "", "x"), ("2026-11-19", "EUR", "1.15830", "", "x"), ecb[0]]
    again = merge(own, other, shipped)
    assert (again.added, again.known) == (0, 2)
    assert again.conflicts == ("2026-11-20 EUR: 1.1527 USD for 1 stays, 9.9999 USD for 1 is not taken over",)
    store(own, again.cells)
    assert own.read_text() == before
    assert [file.name for file in tmp_path.iterdir() if file.name.startswith("fx")] == ["fx.csv"]


@pytest.mark.parametrize("banks", [("ecb",), ("cbr",), ("ecb", "cbr"), ("cbr", "ecb")], ids=" then ".join)
@pytest.mark.parametrize(
    "head", ["", "day,currency,usd_per_unit,units_per_usd,source\n"], ids=["no file", "an empty one"]
)
def test_no_update_takes_a_rate_away(tmp_path: Path, banks: tuple[str, ...], head: str) -> None:
    """Whichever bank comes first: what was in force stays, of both currencies."""
    own, had = tmp_path / "fx.csv", set(load_rates(""))
    if head:
        own.write_text(head)
    files = {"ecb": written(tmp_path / "e.xml", ECB_XML), "cbr": written(tmp_path / "r.xml", RUSSIAN_DAY)}
    for bank in banks:
        store(own, merge(own, read_bank(files[bank]), shipped_cells()).cells)
        assert had <= set(load_rates(str(own)))
    assert len(load_rates(str(own))) == len(had) + {("ecb",): 2, ("cbr",): 1}.get(banks, 3)


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    ecb, own = written(tmp_path / "e.xml", ECB_XML), tmp_path / "fx.csv"
    assert run(["prices", "fx", "update", str(ecb)]) == 2
    assert "set TOLLMETER_FX_FILE" in capsys.readouterr().err
    monkeypatch.setenv("TOLLMETER_FX_FILE", str(own))
    assert run(["prices", "fx", "update", str(ecb), str(tmp_path / "none")]) == 2
    assert capsys.readouterr().err == f"tollmeter: {tmp_path / 'none'}: cannot be read: No such file or directory\n"
    assert not own.exists()
    assert run(["prices", "fx", "update", "--json", str(ecb)]) == 0
    counts = {"added": 2, "known": 0, "conflicts": [], "filled": None}
    assert json.loads(capsys.readouterr().out) == counts | {"file": str(own)}
    wrong = written(tmp_path / "w.xml", ECB_XML.replace("1.1527", "2"))
    assert run(["prices", "fx", "update", str(wrong)]) == 1
    assert "2026-11-20 EUR: 1.1527 USD for 1 stays" in capsys.readouterr().err
    assert run(["prices", "fx", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["day"] for row in rows][-2:] == ["2026-11-19", "2026-11-20"]
    assert [row["day"] for row in rows if row["currency"] == "RUB"] == ["2025-01-01"]


@pytest.fixture
def bank() -> Iterator[Callable[[int, str | bytes], str]]:
    """A server on loopback that answers with this status and text; gives its address."""
    answer: list[Any] = [200, b""]

    class Bank(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(answer[0])
            self.end_headers()
            self.wfile.write(answer[1])

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = HTTPServer(("127.0.0.1", 0), Bank)
    thread = Thread(target=server.serve_forever)
    thread.start()

    def says(status: int, text: str | bytes) -> str:
        answer[:] = [status, text.encode() if isinstance(text, str) else text]
        return f"http://127.0.0.1:{server.server_port}/rates?since={{since:%Y}}&until={{until:%Y}}"

    yield says
    server.shutdown()
    thread.join()
    server.server_close()


def test_rates_fetched_from_a_bank_are_those_of_its_file(
    tmp_path: Path, bank: Callable[[int, str | bytes], str]
) -> None:
    for text in (ECB_XML, RUSSIAN_DAY):
        of_file = read_bank(written(tmp_path / "rates.xml", text))
        assert fetch_bank("ecb", date(2026, 11, 29), bank(200, text)) == of_file


@pytest.mark.parametrize(("status", "text"), [(404, ECB_XML), (500, ""), (200, ""), (200, "<html>sorry</html>")])
def test_an_answer_that_is_no_rates_brings_none(
    bank: Callable[[int, str | bytes], str], status: int, text: str
) -> None:
    with pytest.raises(FxError) as wrong:
        fetch_bank("cbr", date(2026, 11, 29), bank(status, text))
    assert "127.0.0.1" in str(wrong.value)
    assert "\n" not in str(wrong.value)


def test_a_bank_that_is_not_there() -> None:
    with pytest.raises(FxError, match="does not answer"):
        fetch_bank("ecb", date(2026, 11, 29), "http://127.0.0.1:9/rates")


def test_price_takes_over_what_comes_into_the_file_and_survives_what_is_wrong(tmp_path: Path) -> None:
    own = tmp_path / "fx.csv"
    own.write_text(",".join(COLUMNS) + "\n", encoding="utf-8")
    book = load(Settings(fx_file=str(own)))
    kernel = PriceKernel(book, RateFile(str(own)))
    event = DataFrame({"cost_nano": [1_000], "at_risk_nano": [None], "event_time": [datetime(2026, 11, 20)]})
    assert not kernel.refresh()
    before = kernel.document()
    own.write_text(own.read_text() + "2026-11-20,RUB,,80,x\n", encoding="utf-8")
    assert kernel.refresh()
    assert not kernel.refresh()
    assert book.convert(event)["cost_rub_nano"].to_list() == [80_000]
    after = kernel.document()
    assert (after[0], after[1] != before[1]) == (before[0], True)
    assert {"day": "2026-11-20", "currency": "RUB", "per_usd_nano": 80 * 10**9, "source": "x"} in json.loads(after[1])[
        "fx"
    ]
    own.write_text("nonsense\n", encoding="utf-8")
    assert not kernel.refresh()
    own.unlink()
    assert not kernel.refresh()
    assert book.convert(event)["cost_rub_nano"].to_list() == [80_000]
