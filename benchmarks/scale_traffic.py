"""Traffic of so many organisations and keys: the calls of `company`, dealt to more or fewer names.

Each organisation's keys are called evenly, the hardest case for whatever keeps something by key.
"""

import time
from dataclasses import replace
from functools import cache
from hashlib import sha256

from benchmarks.preload import QUIET_S, SEED
from tollmeter.schemas.codec import SINGLE_OBJECT_HEADER
from tollmeter.traffic.company import Company, company, org_names
from tollmeter.traffic.stream import Wire

TEMPLATE_ORGS = 8
LEAST_CALLERS = 4
"""Programs that call, of each organisation."""
KEY = b"\x20key-"
"""How the key of a caller begins in a record, behind its length of 16 characters; 12 digits name its organisation."""
ID = slice(len(SINGLE_OBJECT_HEADER) + 1, len(SINGLE_OBJECT_HEADER) + 9)
"""The first eight hex digits of the event id: random, and the same in a resend."""


def population(orgs: int) -> Company:
    """Return a company of so many organisations, whose callers call as those of the usual eight do."""
    templates = [caller for caller in company(SEED, TEMPLATE_ORGS).callers if caller.weight > 0]
    each = max(LEAST_CALLERS, len(templates) // orgs)
    callers = [
        replace(templates[(number * each + n) % len(templates)], org=name, key=f"key-{number:012d}")
        for number, name in enumerate(org_names(orgs))
        for n in range(each)
    ]
    return Company(SEED, org_names(orgs), tuple(callers), ())


def keys_of(org: int, orgs: int, keys: int) -> int:
    """Return how many of all keys the organisation of this number has when they are dealt in turn; one at least."""
    return max(1, (keys - org + orgs - 1) // orgs)


@cache
def key_id(org: int, number: int) -> bytes:
    """Return the made-up id of a key, 16 hex digits."""
    return sha256(f"{org}/{number}".encode()).hexdigest()[:16].encode()


def with_key(value: bytes, orgs: int, keys: int) -> bytes:
    """Return the record with one of its organisation's keys, chosen by its event id."""
    at = value.index(KEY) + 1
    org = int(value[at + 4 : at + 16])
    chosen = key_id(org, int(value[ID], 16) % keys_of(org, orgs, keys))
    return value[:at] + chosen + value[at + 16 :]


def drawn(events: int, span_s: int, orgs: int, keys: int) -> tuple[Wire, list[list[bytes]]]:
    """Return so many events of the last minutes, resends among them, block by block, and their source."""
    end_us = (int(time.time()) - QUIET_S) * 1_000_000
    wire = Wire(population(orgs), events, end_us - span_s * 1_000_000, span_s * 1_000_000)
    return wire, [[with_key(value, orgs, keys) for value in values] for _at, values in wire.blocks()]
