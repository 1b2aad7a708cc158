"""Override and exchange-rate files: every mistake is named with file, line and key; nothing wrong is half-loaded."""

from datetime import date
from pathlib import Path

import pytest

from tollmeter.settings import Settings
from tollmeter.streams.price.book.book import load
from tollmeter.streams.price.book.fx import FxError
from tollmeter.streams.price.book.fx_history import load_rates, stale_lines
from tollmeter.streams.price.book.overrides import OverridesError, load_overrides
from tollmeter.streams.rules.pricing.fx import Rate

RATES = "version: 1\nrates:\n  - name: x\n    provider: openai\n    source: test\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", ":1: expected a mapping with `version: 1`"),
        ("- 1\n", ":1: expected a mapping with `version: 1`"),
        ("version: 1\n  oops: [\n", ":2: no valid YAML: "),
        ("version: 1\nfree: []\nfree: []\n", ":3: no valid YAML: free is given twice"),
        ("version: 2\n", ":1: version: "),
        ("free: []\n", ":1: version: Field required"),
        ("version: 1\nprices: []\n", ":2: prices: no such key"),
        ("version: 1\nfree:\n  - {name: a}\n", ":3: free.0.source: Field required"),
        (RATES, ":3: rates.0: no price: give usd_per_mtok or usd_per_unit"),
        (RATES + "    usd_per_mtok: {input_tokens: -1}\n", ":6: rates.0.usd_per_mtok.input_tokens: "),
        (RATES + "    usd_per_mtok:\n      input_tokens: cheap\n", ":7: rates.0.usd_per_mtok.input_tokens: "),
        (RATES + "    usd_per_mtok: {tokens: 1}\n", ":3: rates.0: no such unit: tokens"),
        (RATES + "    usd_per_mtok: {cache_read_tokens: 1}\n", "cache_read_tokens is part of input_tokens"),
        (RATES + "    usd_per_unit: {images: .nan}\n", ":6: rates.0.usd_per_unit.images: "),
        (
            RATES + "    usd_per_unit: {images: 1}\n    hours: 22:00-06:00\n",
            ":7: rates.0.hours: 22:00-06:00 ends before",
        ),
        (
            RATES + "    usd_per_unit: {images: 1}\n    hours: 25:00-26:00\n",
            ":7: rates.0.hours: 25:00 is no time of day",
        ),
        (RATES + "    usd_per_unit: {images: 1}\n    weekdays: [monday]\n", ":7: rates.0.weekdays.0: "),
        (RATES + "    usd_per_unit: {images: 1}\n    valid_from: 2026-13-01\n", ":7: rates.0.valid_from: "),
        (
            RATES + "    usd_per_unit: {images: 1}\n    valid_from: 2026-02-01\n    valid_to: 2026-01-01\n",
            ":3: rates.0: valid_from 2026-02-01 is not before valid_to 2026-01-01",
        ),
        (
            "version: 1\nfactors:\n  - {name: a, factor: 0, source: test}\n",
            ":3: factors.0.factor: ",
        ),
        (
            "version: 1\nfree:\n  - {name: a, source: test}\n  - {name: a, source: test}\n",
            ":4: free.1.name: a is already taken",
        ),
    ],
)
def test_a_wrong_override_file_says_where_and_what(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "own.yaml"
    file.write_text(text)
    with pytest.raises(OverridesError) as error:
        load_overrides(str(file))
    assert message in str(error.value)
    assert str(error.value).startswith(str(file))


HEAD = "day,currency,usd_per_unit,units_per_usd,source\n"


def test_every_mistake_at_once(tmp_path: Path) -> None:
    file = tmp_path / "own.yaml"
    file.write_text("version: 1\nfree:\n  - {name: a}\n  - {name: b, source: test, colour: red}\n")
    with pytest.raises(OverridesError) as error:
        load_overrides(str(file))
    assert str(error.value).splitlines() == [
        f"{file}:3: free.0.source: Field required",
        f"{file}:4: free.1.colour: no such key",
    ]


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(OverridesError, match="cannot be read: No such file"):
        load(Settings(prices_file=str(tmp_path / "none.yaml")))
    with pytest.raises(FxError, match="cannot be read: No such file"):
        load(Settings(fx_file=str(tmp_path / "none.csv")))


def test_the_shipped_rules_can_be_left_out(tmp_path: Path) -> None:
    file = tmp_path / "own.yaml"
    file.write_text("version: 1\nshipped: false\n")
    assert load_overrides(str(file)).in_force == ()
    assert len(load_overrides().in_force) > 20


def test_rates_without_a_file_of_ones_own() -> None:
    rates = {(rate.day, rate.currency): rate for rate in load_rates()}
    # 1 / 1.0389 USD per EUR and 101.6797 RUB per USD, in nano
    assert rates[date(2024, 12, 31), "EUR"].per_usd_nano == 962_556_550
    assert rates[date(2025, 1, 1), "RUB"].per_usd_nano == 101_679_700_000
    assert max(day for day, currency in rates if currency == "EUR") >= date(2026, 10, 30)
    assert all(rate.source for rate in rates.values())


def test_a_currency_of_the_own_file_comes_from_it_alone(tmp_path: Path) -> None:
    own = tmp_path / "fx.csv"
    own.write_text(HEAD + "2026-11-01,EUR,1.25,,deal\n")
    rates = load_rates(str(own))
    assert [(rate.day, rate.per_usd_nano) for rate in rates if rate.currency == "EUR"] == [
        (date(2026, 11, 1), 800_000_000)
    ]
    assert "RUB" in {rate.currency for rate in rates}


def test_old_rates_are_said() -> None:
    nothing = "there is no rate"
    rates = [Rate(date(2026, 11, 20), "EUR", 9 * 10**8, "x"), Rate(date(2026, 12, 1), "RUB", 10**11, "x")]
    assert stale_lines(rates, date(2026, 11, 27), 7) == [
        f"RUB: {nothing}, amounts in RUB are unknown; 'tollmeter prices fx update --from cbr' or FILE brings rates"
    ]
    eur, rub = stale_lines(rates, date(2026, 11, 28), 7)
    assert eur.startswith("EUR: the last rate is of 2026-11-20, amounts in EUR are unknown;")
    assert rub.startswith("RUB: there is no rate")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", ":1: the first line must be day,currency,usd_per_unit,units_per_usd,source"),
        ("day,rate\n", ":1: the first line must be"),
        (HEAD + "2026-01-01,EUR,1\n", ":2: 3 columns; expected 5"),
        (HEAD + "1.1.2026,EUR,1,,x\n", ":2: day: '1.1.2026' is no date"),
        (HEAD + "2026-01-01,GBP,1,,x\n", ":2: currency: 'GBP'; known are EUR, RUB"),
        (HEAD + "2026-01-01,EUR,1,1,x\n", ":2: usd_per_unit, units_per_usd: give exactly one of the two"),
        (HEAD + "2026-01-01,EUR,,,x\n", ":2: usd_per_unit, units_per_usd: give exactly one of the two"),
        (HEAD + '2026-01-01,EUR,"1,1",,x\n', ":2: usd_per_unit: '1,1' is no number"),
        (HEAD + "2026-01-01,EUR,0,,x\n", ":2: usd_per_unit: 0 is no rate"),
        (HEAD + "2026-01-01,EUR,nan,,x\n", ":2: usd_per_unit: NaN is no rate"),
        (HEAD + "2026-01-01,RUB,,99999999,x\n", ":2: units_per_usd: 99999999 is out of range"),
        (HEAD + "2026-01-01,EUR,1,,\n", ":2: source: say where the rate comes from"),
        (HEAD + "2026-01-01,EUR,1,,x\n\n2026-01-01,EUR,2,,x\n", ":4: day: a second EUR rate for 2026-01-01"),
    ],
)
def test_a_wrong_rate_file_says_where_and_what(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "fx.csv"
    file.write_text(text)
    with pytest.raises(FxError) as error:
        load_rates(str(file))
    assert message in str(error.value)
    assert str(error.value).startswith(str(file))
