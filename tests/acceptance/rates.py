"""Exchange rates and own prices of the stack under test: ten days of made-up bank files, and dated rules."""

from datetime import UTC, date, datetime, timedelta
from decimal import ROUND_HALF_EVEN, Decimal

from tollmeter.schemas.money import FX_COLUMNS

DAYS = 10
"""So many days ago the rates begin."""
DATED = "dated-model-1"
BY_HOUR = "night-model-1"
OWN_PROVIDER = "acme-ai"


def usd_per_eur(day: date) -> Decimal:
    """Return the made-up rate of a day: it changes daily, and divides without a rest."""
    return Decimal("1.25") if day.toordinal() % 2 else Decimal("1.60")


def rub_per_usd(day: date) -> Decimal:
    """Return the made-up rate of a day."""
    return Decimal(80 + day.toordinal() % 7)


def eur_nano(usd_nano: int, day: date) -> int:
    """Return nano-USD in nano-EUR at the rate of the day, half-even."""
    return int((Decimal(usd_nano) / usd_per_eur(day)).quantize(Decimal(1), ROUND_HALF_EVEN))


def rub_nano(usd_nano: int, day: date) -> int:
    """Return nano-USD in nano-RUB at the rate of the day, half-even."""
    return int((Decimal(usd_nano) * rub_per_usd(day)).quantize(Decimal(1), ROUND_HALF_EVEN))


def _days() -> list[date]:
    today = datetime.now(UTC).date()
    return [today - timedelta(days=back) for back in range(DAYS, -2, -1)]  # tomorrow, too: tests run over midnight


def begun() -> str:
    """Return a file of one's own with an old rate of EUR: what ships of EUR, which grows by the month, is left out."""
    return f"{','.join(FX_COLUMNS)}\n2024-12-31,EUR,1.0389,,European Central Bank reference rate\n"


def ecb() -> str:
    """Return the rates as the European Central Bank publishes them (eurofxref-hist.csv)."""
    return "Date,USD,\n" + "".join(f"{day},{usd_per_eur(day)},\n" for day in _days())


def bank_of_russia() -> bytes:
    """Return the rates as the Bank of Russia publishes them (XML_dynamic.asp)."""
    records = "".join(
        f'<Record Date="{day:%d.%m.%Y}" Id="R01235"><Nominal>1</Nominal><Value>{rub_per_usd(day)},0000</Value></Record>'
        for day in _days()
    )
    head = '<?xml version="1.0" encoding="windows-1251"?>\n<ValCurs ID="R01235" name="Foreign Currency Market Dynamic">'
    return f"{head}{records}</ValCurs>".encode("windows-1251")


def prices() -> str:
    """Return the override file: a model that costs 1 USD per million input tokens until yesterday, and 3 since."""
    yesterday = datetime.now(UTC).date() - timedelta(days=1)
    rule = f"provider: {OWN_PROVIDER}, model: {DATED}, source: price list"
    night = f"provider: {OWN_PROVIDER}, model: {BY_HOUR}, source: price list"
    before, since = "{input_tokens: 1, output_tokens: 2}", "{input_tokens: 3, output_tokens: 6}"
    return f"""version: 1
rates:
  - {{name: dated-before, {rule}, valid_to: {yesterday}, usd_per_mtok: {before}}}
  - {{name: dated-since, {rule}, valid_from: {yesterday}, usd_per_mtok: {since}}}
  - {{name: night, {night}, hours: "00:00-12:00", usd_per_mtok: {{input_tokens: 1}}}}
  - {{name: day, {night}, hours: "12:00-24:00", usd_per_mtok: {{input_tokens: 2}}}}
factors:
  - {{name: contract, provider: anthropic, model: claude-haiku-4-5, factor: "0.5", source: contract 4711}}
"""
