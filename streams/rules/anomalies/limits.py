"""From when on something is told: figures by rule, each beside what it rests on in `thresholds.yaml`."""

from pydantic import BaseModel, ConfigDict, Field


class _Figures(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Relative(_Figures):
    """A count per window, held against the highest of two weeks; who has no past yet has figures of its own.

    Told from more than max(`least`, `factor` × the past) on, if the window costs at least `floor_nano`.
    """

    least: int = Field(gt=0)
    factor: int = Field(gt=0)
    floor_nano: int = Field(ge=0)
    new_least: int = Field(gt=0)
    new_floor_nano: int = Field(ge=0)


class Errors(Relative):
    """Failed calls; they make up at least `share_pct` percent of the window."""

    share_pct: int = Field(gt=0, le=100)


class Dominance(_Figures):
    """A key's share of its organisation's hour, in percent."""

    least_pct: int = Field(gt=0, le=100)
    factor: int = Field(gt=1)
    """So many times its usual share, and more than its highest."""
    excess_nano: int = Field(ge=0)
    """Beyond its usual share."""
    keys: int = Field(gt=1)
    """So many keys share the hour."""
    hours: int = Field(gt=0)
    """Closed hours that make an organisation's past."""
    new_pct: int = Field(gt=0, le=100)
    new_floor_nano: int = Field(ge=0)
    new_keys: int = Field(gt=1)


class Limits(_Figures):
    """All rules about identity."""

    past_windows: int = Field(gt=0)
    """Windows with calls, in this week and the last, that make a past."""
    past_age_windows: int = Field(gt=0)
    """Windows since the first one."""
    critical_nano: int = Field(gt=0)
    """What a finding's window or hour costs from this on makes it critical."""
    fan_out: Relative
    error_storm: Errors
    same_body: Relative
    dominance: Dominance
