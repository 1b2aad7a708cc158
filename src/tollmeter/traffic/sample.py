"""Rows of the merged public traces to events: a seed gives the keys, organisations and models that traces lack."""

import random
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from uuid import uuid5
from zlib import crc32

from tollmeter.producers.imports.imports import NAMESPACE
from tollmeter.schemas.event import UsageEvent
from tollmeter.traffic.company import GROUPS, key_id, org_names
from tollmeter.traffic.models import MODELS, models_of

COLUMNS = frozenset({"source", "workload", "ts", "input_tokens", "cached_input_tokens", "output_tokens"})

ORGS = 8
UNNAMED_CLIENTS = 64
"""Rows without client and session are dealt to so many callers per workload."""


@dataclass(frozen=True, slots=True)
class Payer:
    """Who pays for the calls of one client or session of a trace."""

    org: str
    group: str
    user: str
    key: str
    ip: str
    model: int
    own_key: bool
    batch: bool


@lru_cache(maxsize=100_000)
def payer(seed: int, name: str, org: str) -> Payer:
    """Draw the payer of a client: a function of seed and name alone."""
    rng = random.Random(f"{seed}/{name}")
    possible = models_of("chat")
    chosen = org or rng.choice(org_names(ORGS))
    own_key = rng.random() < 0.05
    user = f"user-{rng.randrange(40):02d}"
    return Payer(
        org=chosen,
        group=rng.choice(GROUPS),
        user=user,
        key=key_id(seed, chosen, "own", user) if own_key else key_id(seed, chosen, rng.randrange(12)),
        ip=f"10.{crc32(chosen.encode()) % 256}.{rng.randrange(4)}.{rng.randrange(1, 255)}",
        model=rng.choices(possible, [MODELS[i].share for i in possible])[0],
        own_key=own_key,
        batch=rng.random() < 0.03,
    )


def trace_of(row: Mapping[str, object]) -> str:
    """Name the trace of a row: each has a calendar of its own."""
    return f"{row.get('source', '')}/{row.get('workload', '')}"


def event_of(row: Mapping[str, object], place: str, seed: int, org: str = "") -> UsageEvent:
    """Return the event of a row. The same row, place, seed and organisation give the same id. Raises ValueError."""
    trace, at = trace_of(row), datetime.fromisoformat(str(row.get("ts", "")))
    who = row.get("client") or row.get("session") or f"#{crc32(f'{seed}/{place}'.encode()) % UNNAMED_CLIENTS}"
    paid = payer(seed, f"{trace}/{who}", org)
    model = MODELS[paid.model]
    read, cached, written = (_count(row, name) for name in ("input_tokens", "cached_input_tokens", "output_tokens"))
    return UsageEvent(
        event_id=str(uuid5(NAMESPACE, f"{seed}/{org}/{trace}/{place}/{at.isoformat()}")),
        occurred_at=at,
        service=str(row["workload"]),
        producer="tollmeter-import/1",
        org_id=paid.org,
        group_id=paid.group,
        user_id=paid.user,
        feature=str(row["workload"]),
        session_id=str(row.get("session") or ""),
        api_key_id=paid.key,
        billing_scope="USER" if paid.own_key else "ORG",
        client_ip=paid.ip,
        provider=model.provider,
        api_host=model.host,
        operation=model.operation,
        model_sent=model.sent,
        model_used=model.used,
        processing="BATCH" if paid.batch else "REALTIME",
        status="OK",
        http_status=200,
        usage_source="PROVIDER",
        input_tokens=read,
        cache_read_tokens=cached if model.cache else 0,
        output_tokens=written,
        prompt_hash=str(row.get("body_hash") or ""),
        tags={"trace": trace},
    )


def _count(row: Mapping[str, object], name: str) -> int:
    text = str(row.get(name, "") or "0")
    if not text.isdecimal():
        raise ValueError(f"{name} is {text!r}, not a count")
    return int(text)
