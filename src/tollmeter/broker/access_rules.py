"""Who may do what with which topic: one principal for each kind of process, and nobody writes where it has no business.

Kafka knows rights on topics, not on kinds of records: WATCH and LEDGER may write to `usage.priced` because voids of
repeated ids and repairs stand there, and they write nothing else. `User:...` is what the listener authenticates;
whoever may write to `usage.events` can state usage of any organisation.
"""

import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from tollmeter.schemas import topics
from tollmeter.settings import Settings

Resource = Literal["topic", "group", "cluster"]
Operation = Literal["Read", "Write", "Create", "Alter", "Describe", "DescribeConfigs"]
ALL = tuple(topic.name for topic in topics.TOPICS)
CLUSTER = "kafka-cluster"
"""The name of the cluster among the resources."""


@dataclass(frozen=True, slots=True)
class Role:
    """A kind of process, and all that it may do. Topics by their names in `schemas.topics`, groups by their stage."""

    name: str
    who: str
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    why: str
    """Why it writes there."""
    group: str = ""
    """The stage whose consumer group it joins."""
    watches: tuple[str, ...] = ()
    """Stages whose committed offsets it asks for."""
    sets_up: bool = False


ROLES = (
    Role("producer", "a service that sends usage", (topics.POLICIES,), (topics.EVENTS,), "its calls"),
    Role(
        "guard",
        "a service that asks before each call",
        (topics.POLICIES, topics.SPEND, topics.PRICES),
        (topics.EVENTS, topics.SPEND, topics.ALERTS),
        "its calls, its sign of life among the guards, what it refused",
    ),
    Role(
        "price",
        "PRICE",
        (topics.EVENTS, topics.POLICIES),
        (topics.PRICED, topics.DLQ, topics.PRICES, topics.ALERTS),
        "priced rows and ticks, dead letters, the price book, what is wrong with its input",
        group="price",
    ),
    Role(
        "ledger",
        "LEDGER and its hourly check",
        (topics.EVENTS, topics.PRICED, topics.DLQ, topics.ALERTS, topics.POLICIES, topics.PRICES, topics.REGISTRY),
        (topics.PRICED, topics.DLQ, topics.ALERTS),
        "voids of ids with two times, late rates and prices, rows that were refused, what is wrong with the line",
        group="ledger",
        watches=("price", "watch"),
    ),
    Role(
        "watch",
        "WATCH",
        (topics.PRICED, topics.POLICIES),
        (topics.PRICED, topics.ALERTS, topics.SPEND),
        "voids of ids with two times and repairs, alerts, what is spent",
        group="watch",
        watches=("ledger",),
    ),
    Role(
        "notify",
        "notify",
        (topics.ALERTS, topics.NOTICES, topics.POLICIES),
        (topics.NOTICES, topics.ALERTS),
        "its journal, storms",
        group="notify",
    ),
    Role(
        "server",
        "`tollmeter serve`: doors, proxy, pages",
        (
            topics.PRICED,
            topics.ALERTS,
            topics.POLICIES,
            topics.PRICES,
            topics.SPEND,
            topics.NOTICES,
            topics.REGISTRY,
        ),
        (
            topics.EVENTS,
            topics.PRICED,
            topics.ALERTS,
            topics.POLICIES,
            topics.SPEND,
            topics.NOTICES,
            topics.REGISTRY,
        ),
        "calls, rules and corrections of whoever signs in as the admin, keys",
        watches=("price", "ledger", "watch"),
    ),
    Role(
        "admin",
        "whoever runs commands that change things",
        ALL,
        (
            topics.EVENTS,
            topics.PRICED,
            topics.DLQ,
            topics.ALERTS,
            topics.POLICIES,
            topics.SPEND,
            topics.NOTICES,
            topics.REGISTRY,
        ),
        "rules, repairs, corrections, imports and retries, acknowledgements, keys; tombstones of who is forgotten",
        watches=("price", "ledger", "watch", "notify"),
        sets_up=True,
    ),
    Role(
        "reader",
        "whoever runs commands that only look",
        ALL,
        (),
        "",
        watches=("price", "ledger", "watch", "notify"),
    ),
)
BY_NAME = {role.name: role for role in ROLES}


class Rule(NamedTuple):
    """One rule of access: this principal may, from anywhere."""

    resource: Resource
    name: str
    principal: str
    operation: Operation


def by_place(found: Iterable[Rule]) -> list[list[Rule]]:
    """Put the rules of one principal about one resource together."""
    groups: dict[tuple[str, str, str], list[Rule]] = {}
    for rule in found:
        groups.setdefault((rule.principal, rule.resource, rule.name), []).append(rule)
    return list(groups.values())


def command(group: Sequence[Rule]) -> str:
    """Return the rules of one principal about one resource as `kafka-acls` takes them."""
    first = group[0]
    where = "--cluster" if first.resource == "cluster" else f"--{first.resource} {first.name}"
    operations = " ".join(f"--operation {rule.operation}" for rule in group)
    return (
        "kafka-acls --bootstrap-server $KAFKA --add "
        f"--allow-principal {shlex.quote(first.principal)} {operations} {where}"
    )


def principal_of(settings: Settings, role: str, named: Mapping[str, str]) -> str:
    """Return the principal of a role: as it was named, else `User:<group prefix>-<role>`."""
    return named.get(role, f"User:{settings.group_prefix}-{role}")


def rules(settings: Settings, named: Mapping[str, str] | None = None) -> list[Rule]:
    """Return every rule of a line, each once, in the order of the roles."""
    named = named or {}
    found = (rule for role in ROLES for rule in _rules(settings, role, principal_of(settings, role.name, named)))
    return list(dict.fromkeys(found))


def _rules(settings: Settings, role: Role, principal: str) -> Iterator[Rule]:
    for topic in ALL:
        name = settings.topic(topic)
        if topic in role.reads:
            yield Rule("topic", name, principal, "Read")
        if topic in role.writes:
            yield Rule("topic", name, principal, "Write")
        if role.name not in ("producer", "guard"):  # all parts of the line compare its layout with the broker's counts
            yield Rule("topic", name, principal, "Describe")
        if role.sets_up:
            yield Rule("topic", name, principal, "Create")
        if role.sets_up or role.name == "reader":
            yield Rule("topic", name, principal, "DescribeConfigs")
    if role.group:
        yield Rule("group", settings.group(role.group), principal, "Read")
    for stage in role.watches:
        yield Rule("group", settings.group(stage), principal, "Describe")
    if role.sets_up:
        yield Rule("cluster", CLUSTER, principal, "Alter")  # to make these rules
    if role.sets_up or role.name == "reader":
        yield Rule("cluster", CLUSTER, principal, "Describe")
