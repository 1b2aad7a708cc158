"""What compacted topics say of a forgotten user or address: rows of it get tombstones, texts lose the name.

A tombstone is kept by the broker until it has cleaned the log, and then the name is gone from its files, too. Repeated,
everything here is the same: what names nobody is left alone.
"""

import json
import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from tollmeter.broker import compacted, registry
from tollmeter.broker.policies import Change, entries, member_delete, policy_delete, write
from tollmeter.schemas import topics
from tollmeter.schemas.access import BLOCK_PREFIX, RATE_PREFIX
from tollmeter.schemas.model_rules import MODELS_PREFIX
from tollmeter.schemas.registry import KeyLabel
from tollmeter.settings import Settings
from tollmeter.streams.notify.journal import ACK, FEEDBACK, FORGET, MUTE, NOTICE

SOMEBODY = "(forgotten)"
SCOPES = {"user": "user", "ip": "client_ip"}
_ACCESS = tuple(prefix.encode() for prefix in (BLOCK_PREFIX, RATE_PREFIX, MODELS_PREFIX))
_POLICY, _MEMBER, _HISTORY, _PASSED = b"policy:", b"member:", b"history:", b"passed:"


class Named(NamedTuple):
    """Who is looked for in topics: a kind of scope and a name, in one organisation or, "", in all."""

    scope: str
    name: str
    org: str = ""

    def is_place(self, parts: Iterable[str]) -> bool:
        """Tell whether organisation, kind and name, as keys write them, are this one's."""
        org, scope, name, *_ = [*map(_plain, parts), "", "", ""]
        return (scope, name) == (self.scope, self.name) and self.org in ("", org)

    @property
    def _forms(self) -> str:
        """The name as it is, as keys write it, and as JSON may."""
        written = (json.dumps(self.name, ensure_ascii=ascii_only)[1:-1] for ascii_only in (True, False))
        return "|".join(re.escape(form) for form in sorted({self.name, escaped(self.name), *written}))

    @property
    def re2(self) -> str:
        """A pattern of ClickHouse for the name as a word: what stands before it, itself, what stands behind it."""
        return rf"(^|[^\w@.-])({self._forms})($|[^\w@-])"

    def without(self, value: object) -> object:
        """Return a JSON value in which no text names it."""
        word = re.compile(rf"(?<![\w@.-])(?:{self._forms})(?![\w@-])")

        def clean(part: object) -> object:
            if isinstance(part, str):
                return word.sub(SOMEBODY, part)
            if isinstance(part, dict):
                return {key: clean(one) for key, one in part.items()}
            return [clean(one) for one in part] if isinstance(part, list) else part

        return clean(value)


def forget(settings: Settings, who: Named) -> dict[str, int]:
    """Return how many records were written to each topic. Raises `PolicyError`, `RegistryError`, `KafkaError`."""
    changes = rule_changes(entries(settings), who)
    write(settings, changes)
    labels = _labels(settings, who)
    registry.write(settings, {label.key: label for label in labels})
    return {
        topics.POLICIES: len(changes),
        topics.REGISTRY: len(labels),
        topics.NOTICES: compacted.write(settings, topics.NOTICES, notice_changes(_rows(settings, topics.NOTICES), who)),
        topics.SPEND: forget_spend(settings, who),
    }


def forget_spend(settings: Settings, who: Named) -> int:
    """Take away what guards are told of it; WATCH tells nothing more of who has no calls."""
    return compacted.write(settings, topics.SPEND, spend_changes(_rows(settings, topics.SPEND), who))


def left(settings: Settings, who: Named) -> dict[str, int]:
    """Return how many records in force still name it, by topic."""
    return {
        topics.POLICIES: len(rule_changes(entries(settings), who)),
        topics.REGISTRY: len(_labels(settings, who)),
        topics.NOTICES: len(_naming_notices(_rows(settings, topics.NOTICES), who)),
        topics.SPEND: len(spend_changes(_rows(settings, topics.SPEND), who)),
    }


def _rows(settings: Settings, topic: str) -> dict[bytes, bytes]:
    return compacted.read(settings, topic)


# -- policies, members, blocks, rates, allowed models ------------------------------------------------------------------


def rule_changes(found: Mapping[bytes, bytes], who: Named) -> list[Change]:
    """Return what ends or rewrites the rows of the policies' topic that name it."""
    changes = []
    for key, value in found.items():
        kind, _, rest = key.partition(b":")
        parts = rest.decode("utf-8", "replace").split("/")
        org = _plain(parts[0])
        if key.startswith((_HISTORY, _PASSED)):
            changes += _told(key, value, org, who)
        elif not who.is_place(parts):
            changes += _rewritten(key, value, org, who) if key.startswith(_ACCESS) else []
        elif key.startswith(_POLICY):
            changes.append(policy_delete(org, rest.decode()))
        elif key.startswith(_MEMBER):
            changes.append(member_delete(org, rest.decode()))
        elif kind + b":" in _ACCESS:
            changes.append(Change(org, key, None))
    return changes


def _told(key: bytes, value: bytes, org: str, who: Named) -> list[Change]:
    """Return the change of a line of history: it goes where its policy is of the name, else its words change."""
    policy_id = key.removeprefix(_HISTORY).decode("utf-8", "replace").rsplit(":", 2)[0]
    if key.startswith(_HISTORY) and who.is_place(policy_id.split("/")):
        return [Change(org, key, None)]
    return _rewritten(key, value, org, who)


def _rewritten(key: bytes, value: bytes, org: str, who: Named) -> list[Change]:
    if who.org not in ("", org):
        return []
    document = _document(value)
    cleaned = who.without(document)
    return [Change(org, key, json.dumps(cleaned).encode())] if cleaned != document else []


# -- what guards are told ----------------------------------------------------------------------------------------------


def spend_changes(found: Mapping[bytes, bytes], who: Named) -> dict[bytes, bytes | None]:
    """Return the tombstones of its spend rows."""
    prefix = b"spend/"
    mine = (key for key in found if key.startswith(prefix))
    return {key: None for key in mine if who.is_place(key.removeprefix(prefix).decode("utf-8", "replace").split("/"))}


# -- the journal of notify ---------------------------------------------------------------------------------------------


def _naming_notices(found: Mapping[bytes, bytes], who: Named) -> dict[bytes, object]:
    """Return the documents that name it, by key, as they shall be."""
    naming: dict[bytes, object] = {}
    for key, value in found.items():
        document = _document(value)
        if not isinstance(document, dict) or not _of_org(document, who.org):
            continue
        cleaned = who.without(document)
        if cleaned != document:
            naming[key] = cleaned
    return naming


def notice_changes(found: Mapping[bytes, bytes], who: Named) -> dict[bytes, bytes | None]:
    """Return what to write: what people said goes; of notices the one in charge is told what they shall say."""
    changes: dict[bytes, bytes | None] = {}
    for key, document in _naming_notices(found, who).items():
        if key.startswith(NOTICE.encode()):
            changes[FORGET.encode() + key.removeprefix(NOTICE.encode())] = json.dumps(document).encode()
        elif key.startswith((MUTE.encode(), ACK.encode(), FEEDBACK.encode())):
            changes[key] = None
    return changes


def _of_org(document: Mapping[str, object], org: str) -> bool:
    """Tell whether a record of the journal may be about an organisation; an acknowledgement does not say."""
    event = document.get("event")
    data = event.get("data") if isinstance(event, dict) else None
    said = data.get("org_id") if isinstance(data, dict) else document.get("org", org)
    return not org or said in (org, "")


# -- labels of keys ----------------------------------------------------------------------------------------------------


def _labels(settings: Settings, who: Named) -> list[KeyLabel]:
    """Return the labels whose owner it is, without an owner."""
    rows = [row for row in registry.read(settings).values() if isinstance(row, KeyLabel)]
    mine = [row for row in rows if who.scope == "user" and row.owner == who.name and who.org in ("", row.org_id)]
    return [label.model_copy(update={"owner": ""}) for label in mine]


def _document(value: bytes) -> object:
    try:
        return json.loads(value)
    except ValueError:
        return None


def escaped(part: str) -> str:
    return part.replace("%", "%25").replace("/", "%2F")


def _plain(part: str) -> str:
    return part.replace("%2F", "/").replace("%25", "%")
