"""The dispatcher: every alert is taken once, told to whom its routes name or held back for a reason, and closed once.

Pure: time is an argument; what changes comes back as new notices, which the caller makes durable before it acts.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from heapq import heappop, heappush
from itertools import islice
from typing import Any

from tollmeter.streams.notify import lifecycle
from tollmeter.streams.notify.feedback import Feedback
from tollmeter.streams.notify.incidents import INCIDENT, KEY, ORGANISATION, UNTOLD, Incidents, Standing, Told
from tollmeter.streams.notify.notice import Acknowledgement, Delivery, Mute, Notice, reopened
from tollmeter.streams.notify.outcome import Outcome
from tollmeter.streams.notify.routes import Routes
from tollmeter.streams.notify.weather import STORM, Weather

REMEMBER_S = 40 * 86_400.0
"""Longer than `usage.alerts` keeps its records: an alert that is read again is known."""
DIGEST_MOST = 5_000
"""Alerts in one digest: its record stays far below a megabyte."""


class Dispatcher:
    """All notices, and what is to be told next. One instance is in charge at a time."""

    def __init__(self, routes: Routes, old_s: float) -> None:
        self.routes, self._old_s = routes, old_s
        self.notices: dict[str, Notice] = {}
        self.mutes: dict[str, Mute] = {}
        self.feedback: dict[str, Feedback] = {}
        """By incident what people said of it last."""
        self._queues: dict[str, dict[tuple[str, str], None]] = {name: {} for name in routes.consumers}
        self._digest: dict[str, dict[str, float]] = {name: {} for name in routes.consumers}
        self._blocked: dict[str, float] = {}
        self._told = Told()
        self._incidents = Incidents()
        self.weather = Weather(routes.limits)
        self._latest: dict[str, str] = {}
        """By the id of an alert that of its last opening."""
        self._open: dict[str, None] = {}
        self._ends: list[tuple[float, str]] = []
        """When to look whether an open notice is over: a heap."""
        self._over: deque[tuple[float, str]] = deque()

    def load(self, notices: Iterable[Notice], now_s: float) -> None:
        """Take over what the journal holds, in the order in which it was opened."""
        for notice in sorted(notices, key=lambda n: (n.opened_s, n.id)):
            self._keep(notice)
            self._count(notice)
        self._over = deque(sorted(self._over))
        for notice in list(self.notices.values()):
            for member in notice.covers:  # a digest that was made, and then the members were not written any more
                for delivery in notice.deliveries:
                    self._digest.get(delivery.consumer, {}).pop(member, None)
        self.weather.look(now_s)

    # ---- alerts come in

    def take(self, event: dict[str, Any], now_s: float) -> Notice | None:
        """Return the notice of an alert that is new, None for one that is known. Raises `ValueError` for no alert."""
        if not isinstance(event.get("id"), str) or not event["id"] or not isinstance(event.get("data"), dict):
            raise ValueError("no alert: a CloudEvent with id and data is expected")
        bare = Notice(id=event["id"], event=dict(event), opened_s=now_s)
        known = self.notices.get(self._latest.get(bare.id, bare.id))
        if known is None:
            return self._opened(bare, now_s)
        again = lifecycle.is_rolling(known) and lifecycle.lost_its_limit(known) and bare.raised_s > known.raised_s
        return self._opened(reopened(known, bare.raised_s), now_s) if again else None

    def _opened(self, bare: Notice, now_s: float) -> Notice:
        """Return a notice with those who are to hear of it."""
        self.weather.look(now_s)
        turn = self._incidents.turn_of(bare, now_s)
        change = "updated" if not turn.opens else "opened" if turn.number == 1 else "reopened"
        bare = bare.model_copy(update={"incident": turn.incident, "turn": turn.number, "change": change})
        consumers = self.routes.consumers_for(bare.kind, bare.severity, *bare.scope)
        held = self._held(bare, consumers, now_s)
        told = held in ("", "old", STORM, "cap")
        deliveries = tuple(
            Delivery(consumer=name, status="digest" if held else "pending", since_s=now_s, next_s=now_s)
            for name in (consumers if told else ())
        )
        notice = bare.model_copy(update={"held": held, "deliveries": deliveries})
        self.notices[notice.id] = notice  # known from now on, and told once the caller has made it durable
        self._latest[notice.base_id] = notice.id
        self._incidents.keep(notice)
        self._count(notice)
        self.weather.look(now_s)
        return notice

    def _held(self, notice: Notice, consumers: tuple[str, ...], now_s: float) -> str:
        """Return why nobody is told of this alert at once; empty when they are."""
        if now_s - notice.raised_s > self._old_s:
            return "old"
        if any(mute.until_s > now_s and mute.matches(notice.kind, notice.scope) for mute in self.mutes.values()):
            return "muted"
        if any(said.expects(notice, now_s) for said in self.feedback.values()):
            return "expected"
        if told := self._repeats(notice, now_s):
            return "repeat" if told.kind == notice.kind else INCIDENT
        if self._told.within(notice):
            return ORGANISATION
        if self._told.of_key(notice):
            return KEY
        if not consumers:
            return "no route"
        return "" if notice.kind in (STORM, "report") else self.weather.holds(notice, now_s)

    def standing(self, notice: Notice) -> Standing:
        """Return what is known of the incident of a notice that was taken, with the notice."""
        return self._incidents.standing(notice, self.notices)

    def _repeats(self, notice: Notice, now_s: float) -> Notice | None:
        """Return by what people know of this: told lately, or taken care of, and since then it has not grown."""
        told = None if notice.kind in lifecycle.STEPS else self._told.known(notice)
        now = told and self.notices.get(told.id, told)
        known = now and (now.state == "acknowledged" or now_s - now.opened_s < self.routes.limits.cooldown)
        return now if known else None

    def add(self, notice: Notice) -> Notice:
        """Have a durable notice told: one that was taken, a report, a digest."""
        self._keep(notice)
        return notice

    # ---- deliveries go out

    def due(self, now_s: float, busy: Iterable[str] = ()) -> list[tuple[str, Notice, Delivery]]:
        """Return for each consumer that is free the next message to it: those that failed wait for their time."""
        found = []
        for consumer in self._queues.keys() - set(busy):
            if self._blocked.get(consumer, 0.0) <= now_s:
                found += [(consumer, *entry) for entry in self._first_due(consumer, now_s)]
        return sorted(found, key=lambda entry: entry[0])

    def _first_due(self, consumer: str, now_s: float) -> Iterator[tuple[Notice, Delivery]]:
        for notice_id, about in self._queues[consumer]:
            notice = self.notices[notice_id]
            delivery = next(d for d in notice.deliveries if (d.consumer, d.about) == (consumer, about))
            if delivery.next_s <= now_s:
                yield notice, delivery
                return

    def settle(self, notice_id: str, delivery: Delivery, outcome: Outcome, now_s: float) -> Notice:
        """Return the notice after an attempt: sent, to be tried again, or given up."""
        retry = self.routes.retry
        attempts = delivery.attempts + 1
        update: dict[str, Any] = {"attempts": attempts, "error": outcome.error, "status": "sent"}
        if outcome.error:
            pause = max(outcome.wait_s, min(retry.longest, retry.first * 2.0 ** min(attempts - 1, 30)))
            given_up = now_s - delivery.since_s >= retry.give_up
            update |= {"status": "failed" if given_up else "pending", "next_s": now_s + pause}
            if outcome.away:
                self._blocked[delivery.consumer] = now_s + pause
            elif outcome.unsure:
                self._blocked[delivery.consumer] = now_s + retry.first
        notice = self.notices[notice_id].changed(delivery.model_copy(update=update))
        self._keep(notice)
        return notice

    # ---- what people say

    def acknowledge(self, notice_id: str, said: Acknowledgement) -> Notice | None:
        """Return the notice as acknowledged; None when it is not known, or is over, or was acknowledged before."""
        notice = self.notices.get(self._latest.get(notice_id, notice_id))
        if notice is None or notice.state != "open" or (notice.opening > 1 and said.at_s < notice.opened_s):
            return None
        notice = notice.model_copy(update={"state": "acknowledged", "acknowledged_by": said.by})
        self._keep(notice)
        return notice

    def judge(self, said: Feedback) -> list[Notice]:
        """Take what people say of an incident; return its notices that somebody takes care of by that."""
        self.feedback[said.incident] = said
        word = Acknowledgement(by=said.by, at_s=said.at_s)
        members = list(self._incidents.members.get(said.incident, ()))
        return [notice for one in members if (notice := self.acknowledge(one, word)) is not None]

    # ---- time goes on

    def close(self, notice: Notice, resolution: str, now_s: float, *, tell: bool) -> Notice:
        """Return the notice as resolved; those who were told that it opened are told that it is over."""
        again = tuple(
            Delivery(consumer=d.consumer, about="resolved", since_s=now_s, next_s=now_s)
            for d in notice.deliveries
            if tell and d.about == "opened" and d.status in ("pending", "sent")
        )
        update = {"state": "resolved", "resolved_s": now_s, "resolution": resolution}
        notice = notice.model_copy(update={**update, "deliveries": notice.deliveries + again})
        self._keep(notice)
        return notice

    def sweep(self, now_s: float) -> list[Notice]:
        """Return the notices that time alone changes: those that are over."""
        self.weather.look(now_s)
        changed = []
        while self._ends and self._ends[0][0] <= now_s:
            _, notice_id = heappop(self._ends)
            if notice_id not in self._open:
                continue
            notice = self.notices[notice_id]
            end_s = self._ends_s(notice)
            if end_s > now_s:  # seen again meanwhile
                heappush(self._ends, (end_s, notice_id))
            else:
                step = notice.kind in lifecycle.STEPS
                tell = not step and lifecycle.recovers(notice.kind) and self._told.ends_it(notice)
                resolution = lifecycle.PERIOD_OVER if step else "not seen any more"
                changed.append(self.close(notice, resolution, now_s, tell=tell))
        return changed

    def _ends_s(self, notice: Notice) -> float:
        if notice.kind in lifecycle.STEPS:
            return lifecycle.ends_s(notice)
        return self._told.seen_s(notice) + self.routes.limits.quiet

    def policies(self, changes: lifecycle.Changes, now_s: float) -> list[Notice]:
        """Return the notices whose limit is not in force any more, and new ones of limits that are again."""
        over = lifecycle.ended((self.notices[notice_id] for notice_id in self._open), changes)
        changed = [self.close(notice, resolution, now_s, tell=tell) for notice, resolution, tell in over]
        again = lifecycle.in_force_again(self.notices.values(), changes, now_s) if changes else []
        return changed + [self.add(self._opened(reopened(notice, now_s), now_s)) for notice in again]

    def orphans(self) -> list[Notice]:
        """Return the notices of which a delivery waits for a consumer that the routes file does not name any more."""
        changed = []
        failed = {"status": "failed", "error": "no such consumer in the routes file any more"}
        for notice in list(self.notices.values()):
            for delivery in notice.deliveries:
                if delivery.status in ("pending", "digest") and delivery.consumer not in self._queues:
                    self._keep(self.notices[notice.id].changed(delivery.model_copy(update=failed)))
                    changed.append(notice.id)
        return [self.notices[notice_id] for notice_id in dict.fromkeys(changed)]

    def digests(self, now_s: float) -> Iterator[tuple[str, list[Notice]]]:
        """Yield each consumer whose digest is due, with the notices it is to tell of, oldest first."""
        for consumer, members in self._digest.items():
            if members and min(members.values()) + self.routes.limits.digest <= now_s:
                yield consumer, [self.notices[notice_id] for notice_id in islice(members, DIGEST_MOST)]

    def digested(self, consumer: str, members: Iterable[Notice]) -> list[Notice]:
        """Return the notices after a digest that tells of them was made."""
        changed = [
            member.changed(delivery.model_copy(update={"status": "digested"}))
            for member in (self.notices[member.id] for member in members)  # another digest may have changed it since
            for delivery in member.deliveries
            if delivery.consumer == consumer and delivery.status == "digest"
        ]
        for notice in changed:
            self._keep(notice)
        return changed

    def forget(self, now_s: float) -> list[str]:
        """Drop what is over for so long that nobody will send it again; return the ids."""
        gone = []
        while self._over and self._over[0][0] + REMEMBER_S < now_s:
            _, notice_id = self._over.popleft()
            if (notice := self.notices.pop(notice_id, None)) is not None:
                self._incidents.forget(notice)
                gone.append(notice_id)
        return gone

    # ---- indexes

    def _keep(self, notice: Notice) -> None:
        known, self.notices[notice.id] = self.notices.get(notice.id), notice
        if known is None:
            self._latest[notice.base_id] = notice.id
        self._told.keep(notice)
        self._incidents.keep(notice)
        if notice.resolved_s is not None:
            self._open.pop(notice.id, None)
            if known is None or known.resolved_s is None:
                self._over.append((notice.resolved_s, notice.id))
        elif notice.id not in self._open:
            self._open[notice.id] = None
            heappush(self._ends, (self._ends_s(notice), notice.id))
        for delivery in notice.deliveries:
            queue, digest = self._queues.get(delivery.consumer, {}), self._digest.get(delivery.consumer, {})
            if delivery.status == "pending":
                queue.setdefault((notice.id, delivery.about))
            else:
                queue.pop((notice.id, delivery.about), None)
            if delivery.status == "digest":
                digest[notice.id] = delivery.since_s
            else:
                digest.pop(notice.id, None)

    def _count(self, notice: Notice) -> None:
        """Count an alert that was taken for storm, caps and cooldown."""
        if notice.kind in (STORM, "report", "digest") or notice.held in UNTOLD:
            return
        self._told.count(notice)
        self.weather.count(notice)
