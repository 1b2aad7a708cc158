"""A made-up company, drawn once from a seed: who calls which models, with which key, from where, and how often."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from zlib import crc32

from tollmeter.traffic.models import BUDGET_MODEL, BURST_MODEL, LOOP_MODEL, MODELS, models_of
from tollmeter.traffic.table import TABLE, WORKLOADS, Workload

NAMES = (
    "acme",
    "birch",
    "cobalt",
    "delta",
    "ember",
    "fjord",
    "garnet",
    "harbor",
    "iris",
    "juniper",
    "krona",
    "lumen",
    "maple",
    "nimbus",
    "onyx",
    "poplar",
    "quartz",
    "raven",
    "sable",
    "tundra",
    "umbra",
    "vertex",
    "willow",
    "xenon",
    "yarrow",
    "zephyr",
    "aster",
    "basalt",
    "cinder",
    "dune",
    "elm",
    "flint",
)
GROUPS = ("platform", "support", "research", "growth", "finance")
CALLERS_PER_ORG = 96
KEYS_PER_ORG = 96
USERS_PER_ORG = 36
MAX_WEIGHT = 0.5
"""Callers weigh as clients of the traces do, up to this: at 100,000 events an hour no clean key looks like a leak."""


@dataclass(frozen=True, slots=True)
class Caller:
    """One program calling on behalf of one user with one key: everything about a call that does not change."""

    org: str
    group: str
    user: str
    key: str
    service: str
    environment: str
    agent: str
    feature: str
    billing_scope: str
    ips: tuple[str, ...]
    models: tuple[int, ...]
    workload: Workload
    weight: float
    tags: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Leak:
    """A story put into the traffic: what `caller` (an index) does. `past` = its key is an ordinary one too."""

    kind: str
    past: bool
    caller: int


@dataclass(frozen=True, slots=True)
class Company:
    """Organisations and their callers; `leaks` are callers of weight 0, woken by a request for a leak."""

    seed: int
    orgs: tuple[str, ...]
    callers: tuple[Caller, ...]
    leaks: tuple[Leak, ...]


@cache
def org_names(count: int) -> tuple[str, ...]:
    """Return organisations of which the first four lie in four different partitions of 4, the first eight of 8."""
    known = [f"org-{name}" for name in NAMES]
    chosen: list[str] = []
    for modulus in (4, 8):
        for name in known:
            taken = {crc32(other.encode()) % modulus for other in chosen}
            if name not in chosen and crc32(name.encode()) % modulus not in taken:
                chosen.append(name)
    chosen += [name for name in known if name not in chosen]
    chosen += [f"{name}-{n}" for n in range(2, count // len(known) + 2) for name in known]
    return tuple(chosen[:count])


def company(seed: int, orgs: int = 8) -> Company:
    """Draw the company of a seed; the same seed and count give the same company."""
    rng = random.Random(f"company-{seed}")
    names = org_names(orgs)
    callers = [caller for org in names for caller in _callers(rng, seed, org)]
    leaks = []
    for kind in ("spend_burst", "ingest_loop"):
        for past in (False, True):
            leaks.append(Leak(kind, past, len(callers)))
            callers.append(_leaking(rng, seed, kind, past, callers))
    leaks.append(Leak("over_budget", True, len(callers)))
    callers.append(_over_budget(rng, seed, callers))
    return Company(seed, names, tuple(callers), tuple(leaks))


def key_id(seed: int, *parts: object) -> str:
    """Return a made-up api_key_id: 16 hex, as our producers make them from real keys."""
    return sha256("/".join(map(str, (seed, *parts))).encode()).hexdigest()[:16]


def _callers(rng: random.Random, seed: int, org: str) -> list[Caller]:
    users = [f"{org.removeprefix('org-')}-user-{n:02d}" for n in range(USERS_PER_ORG)]
    ips = _ips(rng, seed, org)
    return [_caller(rng, seed, org, n, users, ips) for n in range(CALLERS_PER_ORG)]


def _caller(rng: random.Random, seed: int, org: str, n: int, users: Sequence[str], ips: Sequence[str]) -> Caller:
    # Rare kinds are certain in each organisation, not left to chance: one caller makes images, one has an own key.
    art = next(w for w in WORKLOADS if w.operation == "image")
    workload = art if n == 0 else rng.choices(WORKLOADS, [w.share for w in WORKLOADS])[0]
    own_key = n == 1 or rng.random() < 0.03
    user = rng.choice(users) if own_key or rng.random() < 0.8 else ""
    possible = models_of(workload.operation)
    chosen = rng.choices(possible, [MODELS[i].share for i in possible], k=3)
    weight = min(TABLE.draw_one("servegen", "language", "client_share", rng.random()), MAX_WEIGHT)
    weight = 0.05 if workload is art else 0.05 + weight
    return Caller(
        org=org,
        group=GROUPS[crc32(f"{org}/{user or n}".encode()) % len(GROUPS)],
        user=user,
        key=key_id(seed, org, "own", user) if own_key else key_id(seed, org, n % KEYS_PER_ORG),
        service=workload.service,
        environment="prod" if rng.random() < 0.9 else "staging",
        agent=workload.agent,
        feature=workload.feature,
        billing_scope="USER" if own_key else ("ORG" if rng.random() < 0.97 else "UNKNOWN"),
        ips=tuple(rng.sample(ips, rng.randint(1, 4))),
        models=tuple(dict.fromkeys(chosen)),
        workload=workload,
        weight=weight,
        tags=(("team", workload.service),) if rng.random() < 0.3 else (),
    )


def _ips(rng: random.Random, seed: int, org: str) -> list[str]:
    """Addresses of the documentation ranges and private nets; a few are truncated, hashed or absent."""
    net = rng.randint(0, 255)
    full = [f"10.{net}.{rng.randint(0, 3)}.{rng.randint(1, 254)}" for _ in range(24)]
    outside = [f"203.0.113.{rng.randint(1, 254)}" for _ in range(4)] + [f"2001:db8:{net:x}::{n:x}" for n in range(1, 4)]
    return [*full, *outside, "198.51.100.0", key_id(seed, org, "ip"), ""]


def _leaking(rng: random.Random, seed: int, kind: str, past: bool, callers: Sequence[Caller]) -> Caller:
    """A caller gone wrong: on the key of an ordinary, busy, organisation-paid caller, or on a key never seen before."""
    busy = sorted((c for c in callers if c.weight > 0 and c.billing_scope == "ORG"), key=lambda c: -c.weight)
    host = rng.choice([c for c in busy[: max(4, len(busy) // 3)] if c.workload.operation == "chat"] or busy)
    workload = next(w for w in WORKLOADS if w.name == kind)
    return _gone_wrong(host, workload, host.key if past else key_id(seed, "leak", kind), host.user, rng)


def _over_budget(rng: random.Random, seed: int, callers: Sequence[Caller]) -> Caller:
    workload = next(w for w in WORKLOADS if w.name == "over_budget")
    host = callers[0]
    return _gone_wrong(host, workload, key_id(seed, host.org, 0), f"{host.org.removeprefix('org-')}-heavy-user", rng)


def _gone_wrong(host: Caller, workload: Workload, key: str, user: str, rng: random.Random) -> Caller:
    model = {"spend_burst": BURST_MODEL, "ingest_loop": LOOP_MODEL, "over_budget": BUDGET_MODEL}[workload.name]
    return Caller(
        org=host.org,
        group=host.group,
        user=user,
        key=key,
        service=host.service,
        environment="prod",
        agent=workload.agent,
        feature=workload.feature,
        billing_scope="ORG",
        ips=(f"198.51.100.{rng.randint(1, 254)}",),
        models=(model,),
        workload=workload,
        weight=0.0,
    )
