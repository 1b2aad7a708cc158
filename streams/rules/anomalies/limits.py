"""From when on something is told: figures by rule, each beside what it rests on in `thresholds.yaml`."""

from pydantic import BaseModel, ConfigDict, Field


class _Figures(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Relative(_Figures):
    """A count per window, held against the highest of two weeks; who has no past yet has figures of its own.

    Told from more than max(`least`, `factor` × the past) on, if the window costs at least `floor_nano`: a warning. Who
    has a past is told as info before that, from `info_least` and `info_floor_nano` on.
    """

    least: int = Field(gt=0)
    factor: int = Field(gt=0)
    floor_nano: int = Field(ge=0)
    info_least: int = Field(gt=0)
    info_floor_nano: int = Field(ge=0)
    new_least: int = Field(gt=0)
    new_floor_nano: int = Field(ge=0)


class Errors(Relative):
    """Failed calls; they make up `share_pct` percent of the window at least, below `least` of them `info_share_pct`."""

    share_pct: int = Field(gt=0, le=100)
    info_share_pct: int = Field(gt=0, le=100)


class Dominance(_Figures):
    """A key's share of its organisation's hour, in percent."""

    least_pct: int = Field(gt=0, le=100)
    factor: int = Field(gt=1)
    """So many times its usual share, and more than its highest."""
    excess_nano: int = Field(ge=0)
    """Beyond its usual share."""
    dearest_factor: int = Field(gt=0)
    """And so many times the dearest hour of its own."""
    warning_excess_nano: int = Field(ge=0)
    """From so much on it is a warning; below it is told as info."""
    keys: int = Field(gt=1)
    """So many keys share the hour."""
    hours: int = Field(gt=0)
    """Closed hours that make an organisation's past."""
    new_pct: int = Field(gt=0, le=100)
    new_floor_nano: int = Field(ge=0)
    new_keys: int = Field(gt=1)


class Cache(_Figures):
    """Cached input that is not any more."""

    usual_pct: int = Field(gt=0, le=100)
    """So much of a key's input is cached usually, at least."""
    factor: int = Field(gt=1)
    """What is cached now is the usual share divided by it, at most."""
    input_tokens: int = Field(gt=0)
    cost_per_call_pct: int = Field(gt=100)
    """Of the usual cost of a call."""


class Beyond(_Figures):
    """How far a part is beyond its past before it is told: in percent of the highest of two weeks."""

    cost_pct: int = Field(gt=100)
    hour_pct: int = Field(gt=100)
    per_call_pct: int = Field(gt=100)
    ratio_pct: int = Field(gt=100)
    sum_hundredths: int = Field(gt=0)
    """What windows are beyond the mean, added up, in hundredths of a standard deviation."""
    minute_pct: int = Field(gt=100)

    def values(self) -> tuple[int, ...]:
        """Return them in the order of the parts."""
        means = self.per_call_pct, self.ratio_pct
        return self.cost_pct, self.hour_pct, *means, self.sum_hundredths, self.minute_pct


class Unusual(_Figures):
    """Statistics of a scope: what is beyond its past, by class, from a floor on."""

    steady: Beyond
    """Of regular and semi-regular scopes."""
    irregular: Beyond
    hour_nano: int = Field(gt=0)
    """The hour costs at least so much."""
    day_pct: int = Field(gt=0, le=100)
    """And at least so many percent of a usual day."""
    minute_nano: int = Field(gt=0)
    """A minute by itself is told from so much on,"""
    minute_day_permille: int = Field(gt=0, le=1_000)
    """and from so many thousandths of a usual day."""
    regular_active_pct: int = Field(gt=0, le=100)
    """So many of a regular scope's windows have calls, in percent."""
    regular_spread_pct: int = Field(gt=0)
    """Its windows differ so much at most: their standard deviation in percent of their mean."""
    semi_active_pct: int = Field(gt=0, le=100)
    semi_spread_pct: int = Field(gt=0)
    back_off_pct: int = Field(ge=0)
    """An episode raises a scope's thresholds by so much; each week forgets half of it."""
    one_key_pct: int = Field(gt=50, le=100)
    """From so much of an address, user or organisation on it is one key's matter: told by the key, if that is told."""


class Ahead(_Figures):
    """Calls from the future within a window."""

    least: int = Field(gt=0)
    share_pct: int = Field(gt=0, le=100)


class Limits(_Figures):
    """All rules about identity."""

    past_windows: int = Field(gt=0)
    """Windows with calls, in this week and the last, that make a past."""
    past_age_windows: int = Field(gt=0)
    """Windows since the first one."""
    critical_nano: int = Field(gt=0)
    """What a finding's window or hour costs from this on makes it critical."""
    floor_nano: int = Field(gt=0)
    """What a window or hour costs before rules without a floor of their own tell of it."""
    fan_out: Relative
    error_storm: Errors
    same_body: Relative
    shared_address: Relative
    dominance: Dominance
    model_price_factor: int = Field(gt=1)
    """A new model at so many times a key's usual price per token is dear."""
    few_networks: int = Field(gt=0)
    """Who was used from more networks than that in two weeks may be used from others."""
    settled_windows: int = Field(gt=0)
    """For so long a key has met no new network before another one is told,"""
    settled_used: int = Field(gt=0)
    """and for so many windows with calls."""
    dormant_days: int = Field(gt=0)
    hours_age_days: int = Field(gt=0)
    """Days that a key must be known before its hours of the day are its own."""
    hours_most: int = Field(gt=0, lt=24)
    """Who uses more hours of the day has none of its own."""
    cache_lost: Cache
    unusual_use: Unusual
    clock_ahead: Ahead
