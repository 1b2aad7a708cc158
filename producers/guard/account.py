"""What one scope has used of its limits in one kind of period and unit, as a guard keeps it."""


class Account:
    """One scope, kind of period and unit. `spent` counts while the clock is before `ends_s`; without a row: nothing.

    `unrated` counts with it: calls that `spent` lacks for want of an exchange rate when they were priced. `usd_nano` is
    what all of them cost, since `starts_s`; of limits in another currency only.
    """

    __slots__ = ("ends_s", "held", "partition", "spent", "stamp", "starts_s", "unrated", "usd_nano")

    def __init__(self) -> None:
        self.spent = 0
        self.unrated = 0
        self.usd_nano = 0
        self.starts_s = 0
        self.ends_s = 0
        self.stamp = -1
        self.partition = -1
        self.held = 0

    @property
    def counted(self) -> int:
        """What of the period's limit is used, as far as spend rows tell."""
        return self.spent + self.unrated
