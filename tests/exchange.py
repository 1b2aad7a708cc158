"""The exchange rates that tests work out their figures with: two old ones of their own, which never go stale."""

from pathlib import Path

from tollmeter.settings import Settings

RATES = Path(__file__).with_name("golden") / "fx_rates.csv"
NEVER_DAYS = 100_000


def dated() -> Settings:
    """Settings with these rates, and defaults for the rest."""
    return Settings(fx_file=str(RATES), fx_max_age_days=NEVER_DAYS)
