"""All a guard knows, fed record by record in any order: prices, limits, who may call, spend. No thread, no network."""

from collections.abc import Callable
from typing import Literal

from tollmeter.producers.guard.access import AccessView
from tollmeter.producers.guard.accounts import Accounts
from tollmeter.producers.guard.answers import Answers
from tollmeter.producers.guard.buckets import Buckets
from tollmeter.producers.guard.clock import GuardClock
from tollmeter.producers.guard.limits import LimitView
from tollmeter.producers.guard.models import ModelView
from tollmeter.producers.guard.prices import Prices, load_prices
from tollmeter.producers.guard.spend import SpendView
from tollmeter.schemas.access import BLOCK_PREFIX, RATE_PREFIX
from tollmeter.schemas.json_values import loads
from tollmeter.schemas.model_rules import MODELS_PREFIX
from tollmeter.schemas.policy import Member, Policy
from tollmeter.schemas.topics import LAYOUT_KEY, org_partition
from tollmeter.settings import Settings

Source = Literal["prices", "policies", "spend"]
_POLICY, _MEMBER = "policy:", "member:"


class Snapshot:
    """What checks read. `apply` is for one thread; everything else is for any."""

    def __init__(
        self,
        settings: Settings,
        wall_ns: Callable[[], int],
        monotonic_ns: Callable[[], int],
        buckets: Buckets | None = None,
    ) -> None:
        self.clock = GuardClock(wall_ns, monotonic_ns)
        self.accounts = Accounts(
            settings.guards,
            round(settings.guard_lease_s * 1_000),
            round(settings.guard_slack_s * 1_000),
            self.clock.monotonic_ms,
        )
        self.limits = LimitView(self.accounts)
        self.access = AccessView(buckets, settings.rate_ipv6_prefix)
        self.answers = Answers()
        self.models = ModelView(self.limits.groups_of)
        self.spend = SpendView(self.accounts, lambda wall_ms: wall_ms - self.clock.offset_ms)
        self.prices: Prices | None = None
        self.partitions: int | None = None
        self.loaded = False
        """Whether the topics have been read to where they ended when the reader began."""
        self.unreadable = 0
        """Records that could not be read; each left things as they were."""
        self._partition_of: dict[str, int] = {}
        self._prices_id = ""

    def apply(self, source: Source, key: bytes | str | None, value: bytes | None) -> bool:
        """Take over a record of one of the three topics; False when it cannot be read."""
        try:
            name = key.decode() if isinstance(key, bytes) else key or ""
            if source == "spend":
                self.spend.apply(name, value)
                self.limits.forget_ended(self.clock.wall_ms() // 1_000)
            elif source == "policies":
                self._policies(name, value)
            elif value is not None:
                self.prices = load_prices(value, lambda: self.clock.wall_ms() // 1_000)
        except ValueError:  # pydantic's and json's errors are ValueErrors, and so are broken UTF-8 and unknown clauses
            self.unreadable += 1
            return False
        return True

    def _policies(self, key: str, value: bytes | None) -> None:
        if key.startswith(_POLICY):
            if value is None:
                self.limits.delete_policy(key.removeprefix(_POLICY))
            else:
                self.limits.set_policy(Policy.model_validate_json(value))
        elif key.startswith(_MEMBER):
            if value is None:
                self.limits.delete_member(key.removeprefix(_MEMBER))
            else:
                self.limits.set_member(Member.model_validate_json(value))
            self.models.forget()
        elif key.startswith((BLOCK_PREFIX, RATE_PREFIX)):
            self.access.apply(key, value)
        elif key.startswith(MODELS_PREFIX):
            self.models.apply(key, value)
        elif key == LAYOUT_KEY.decode() and value is not None:
            layout = loads(value)
            if not isinstance(layout, dict) or not isinstance(layout.get("priced"), int) or layout["priced"] < 1:
                raise ValueError("the layout record is unreadable")
            self.partitions, self._partition_of = layout["priced"], {}

    def partition(self, org: str) -> int | None:
        """Return the partition that owns an organisation; None while the layout is not known."""
        found = self._partition_of.get(org)
        if found is None and self.partitions is not None:
            if len(self._partition_of) > 10_000:
                self._partition_of = {}
            found = self._partition_of[org] = org_partition(org, self.partitions)
        return found

    def staleness_ms(self, org: str | None = None) -> int | None:
        """Return how old what is known of spend is, for one organisation or the oldest of all; None: nothing is."""
        known = self.spend.known_until(None if org is None else self.partition(org))
        return None if known is None else max(0, self.clock.wall_ms() - known)

    def after_fork(self) -> None:
        """In the child: what is known stays; what is out belongs to the parent."""
        self.accounts.clear_held()
        self.limits.renew_lock()
        self.access.after_fork()
