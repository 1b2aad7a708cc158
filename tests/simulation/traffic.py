"""What producers, admins and operators do in a run, and what the broker took of it: the truth that the oracle uses."""

from dataclasses import dataclass, field
from functools import partial
from typing import Any

from faust.types import TP

from tests.simulation.kernels import SOURCES, TARGETS
from tests.simulation.line import Line
from tests.simulation.rows import Book, Event, Row, Rows
from tests.simulation.world import World
from tollmeter.schemas import topics
from tollmeter.schemas.control import Correction, PolicyDelete, PolicySet
from tollmeter.schemas.envelope import control_record, correction_headers
from tollmeter.schemas.policy import Adjustment, Policy

ORGS = ("acme", "umbra", "wayne")  # two of one partition, one of the other
USERS = ("u1", "u2", "")
KEYS = ("k1", "k2")
HOUR_S = 3_600
MONTH_S = 31 * 24 * HOUR_S


@dataclass(slots=True)
class Mix:
    """Shares of odd events; each seed draws its own."""

    resend: float = 0.0
    spool: float = 0.0
    """Sent twice, the second time hours later: its acknowledgement was lost."""
    late: float = 0.0
    ahead: float = 0.0
    malformed: float = 0.0
    poison: float = 0.0
    twin: float = 0.0
    """An id of another organisation, or of another time: not the same event."""
    jump: float = 0.0
    """The next event comes minutes or hours later."""


@dataclass
class Traffic:
    """Schedules a run on the agenda of the world."""

    line: Line
    mix: Mix
    events: int
    span_s: float
    number: int = 0
    sent: list[Event] = field(default_factory=list)
    first_policies: dict[str, Policy] = field(default_factory=dict)
    changed: set[str] = field(default_factory=set)

    @property
    def world(self) -> World:
        return self.line.world

    def schedule(self) -> None:
        """Put everything on the agenda."""
        rng = self.world.rng
        for _ in range(rng.randint(1, 3)):
            policy = self._a_policy()
            self.first_policies.setdefault(policy.policy_id, policy)
            self._control(PolicySet(policy=self.first_policies[policy.policy_id]), policy.org_id)
        for _ in range(self.events):
            self.world.at(rng.random() * self.span_s, self._send)
        for _ in range(rng.choice((0, 0, 1, 3))):
            self.world.at(rng.random() * self.span_s, self._change_policy)
        if rng.random() < 0.4:
            self.world.at(rng.random() * self.span_s, self._deploy_book)
        for _ in range(rng.choice((0, 0, 1, 4))):
            self.world.at(rng.random() * self.span_s, self._correct)

    def _a_policy(self) -> Policy:
        rng = self.world.rng
        kind = rng.choice(("org", "org", "user", "api_key"))
        name = {"org": "", "user": "u1", "api_key": "k1"}[kind]
        daily, monthly = rng.choice(((20_000, None), (None, 60_000), (30_000, 90_000)))
        return Policy(
            org_id=rng.choice(ORGS), scope=kind, name=name, daily_limit_micro=daily, monthly_limit_micro=monthly
        )

    def _control(self, body: Any, org: str) -> None:
        value, headers = control_record(body)
        self.line.broker.append(topics.PRICED, topics.org_partition(org, TARGETS), None, value, headers)

    def _change_policy(self) -> None:
        policy = self._a_policy()
        if self.world.rng.random() < 0.3:
            self._control(PolicyDelete(policy_id=policy.policy_id), policy.org_id)
        else:
            limit = self.world.rng.choice((10_000, 40_000))
            changed = policy.model_copy(update={"daily_limit_micro": limit, "adjustments": self._adjustments()})
            self._control(PolicySet(policy=changed), policy.org_id)
        self.changed.add(policy.policy_id)

    def _adjustments(self) -> tuple[Adjustment, ...]:
        """Some limits are raised or reset until a time."""
        rng, now_ms = self.world.rng, self.world.wall_ms()
        return tuple(
            Adjustment(
                limit=rng.choice(("day/money", "month/money")),
                **rng.choice(({"amount": 70_000}, {"added": 15_000})),
                since_ms=now_ms,
                until_ms=now_ms + rng.choice((2_000, 5_000, 400_000, 4_000_000)),
                by="ann",
                reason="launch",
            )
            for _ in range(rng.choice((0, 1, 2)))
        )

    def _deploy_book(self) -> None:
        """A new price book: every worker that starts from now on uses it; some are started again for it."""
        self.line.book = Book("book-2", 1_700_000)
        for process in list(self.world.processes):
            if process.name == "price" and self.world.rng.random() < 0.7:
                process.kill()

    def _correct(self, event: Event | None = None) -> None:
        """An operator replaces rows that the ledger holds: other costs, another user, nothing, another org."""
        rng = self.world.rng
        rows = [row for key, row in sorted(self.line.store.events.items()) if event is None or key == event.identity]
        if not rows:
            if event is not None and self.world.now < self.span_s:  # as soon as the ledger has it
                self.world.after(0.1, lambda: self._correct(event))
            return
        org = rng.choice(rows).org
        was = rng.sample(mine := [row for row in rows if row.org == org], min(len(mine), rng.randint(1, 3)))
        raised = [row._replace(revision=row.revision + 1) for row in was]
        moved = raised[0]._replace(org=rng.choice([other for other in ORGS if other != org]))
        sends = [(was, [self._replacement(row) for row in raised])]
        if rng.random() < 0.3 and not was[0].void and moved.identity not in self.line.store.events:
            sends = [([], [moved]), (was[:1], [raised[0]._replace(void=True, cost_nano=0)])]
        for again in range(rng.choice((1, 1, 2))):  # it may die half-way, and then it begins again
            for old, new in sends:
                send = partial(self._correction, old, new)
                self.world.after(again * rng.random() * self.span_s, send)

    def _replacement(self, row: Row) -> Row:
        rng = self.world.rng
        changed = ({"cost_nano": rng.randint(0, 20) * 1_000_000}, {"user": rng.choice(USERS)}, {"void": True})
        made = row._replace(**rng.choice(changed))  # type: ignore[arg-type]
        return made._replace(cost_nano=0) if made.void else made

    def _correction(self, was: list[Row], now: list[Row]) -> None:
        body = Correction(id="correction", org_id=now[0].org, was=len(was))
        headers = correction_headers(body, len(was) + len(now))
        target = topics.org_partition(now[0].org, TARGETS)
        self.line.broker.append(topics.PRICED, target, None, Rows([*was, *now]), headers)

    def _send(self) -> None:
        rng, mix, world = self.world.rng, self.mix, self.world
        if world.chance(mix.jump):
            world.jump(rng.choice((5, 60, 400, 1_000, HOUR_S, 3 * HOUR_S)))
        if world.chance(mix.malformed):
            self._append(None)
            return
        if self.sent and world.chance(mix.twin):
            old = rng.choice(self.sent)
            event = old._replace(org=rng.choice(ORGS)) if rng.random() < 0.5 else self._at_another_time(old)
            self._append(event)
            if world.chance(mix.resend):
                world.after(rng.random() * 3.0, lambda: self._append(event))
            if rng.random() < 0.3:
                self._correct(event)
            return
        event = self._an_event()
        self.sent.append(event)
        place = self._append(event)
        if event.poison and rng.random() < 0.7:  # an operator mends ClickHouse, and retries the dead letter twice
            for _ in range(2):
                world.after(1.0 + rng.random() * self.span_s, lambda: self._retry(event, place))
        if world.chance(mix.resend):
            world.after(rng.random() * 3.0, lambda: self._append(event))
        if world.chance(mix.spool):
            world.after(rng.random() * self.span_s, lambda: self._drain(event))

    def _at_another_time(self, old: Event) -> Event:
        """The same id with another time, and other content, each time the same."""
        moved_us = self.world.rng.choice((1, 1, -1, 30_000_000, 700_000_000, -700_000_000))
        at_us = old.at_us + moved_us
        return old._replace(at_us=at_us, user=USERS[at_us % 3], units=at_us % 10, poison=False)

    def _drain(self, event: Event) -> None:
        self.world.jump(self.world.rng.choice((0, 0, 1_200, 2 * HOUR_S)))
        self._append(event)

    def _an_event(self) -> Event:
        rng, world, mix = self.world.rng, self.world, self.mix
        at_s = world.wall()
        if world.chance(mix.late):
            at_s -= rng.choice((100, 890, 1_000, HOUR_S, 5 * HOUR_S, 30 * HOUR_S, MONTH_S))
        elif world.chance(mix.ahead):
            at_s += rng.choice((30, HOUR_S, MONTH_S))
        self.number += 1
        return Event(
            self.number,
            rng.choice(ORGS),
            rng.choice(USERS),
            rng.choice(KEYS),
            int(at_s * 1_000_000),
            rng.randint(0, 9),
            world.chance(mix.poison),
        )

    def _append(self, event: Event | None) -> tuple[int, int]:
        partition = self.world.rng.randrange(SOURCES)
        return partition, self.line.broker.append(topics.EVENTS, partition, None, event, []).offset

    def _retry(self, event: Event, place: tuple[int, int]) -> None:
        """Send again what a dead letter holds, once there is one."""
        letters = (dict(letter.headers) for log in self.line.broker.of(topics.DLQ) for letter in log.records)
        if any((int(one["source_partition"]), int(one["source_offset"])) == place for one in letters):
            self._append(event._replace(poison=False))
        elif self.world.now < self.span_s:
            self.world.after(1.0, lambda: self._retry(event, place))


def partition_of(event: Event) -> TP:
    return TP(topics.PRICED, topics.org_partition(event.org, TARGETS))
