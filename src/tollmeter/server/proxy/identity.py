"""Who a call is for: what the key says, and what the caller's headers add, as far as the key lets them.

Pure. Organisation, user and group decide limits: whoever may not name them is told so, and never counted as another.
"""

from collections.abc import Sequence

from tollmeter.producers.client.scope import Scope
from tollmeter.producers.http.answer import PREFIX
from tollmeter.server.auth import Caller
from tollmeter.server.problems import Problem

IDENTITY = {"org": "org_id", "user": "user_id", "group": "group_id"}
"""Headers after `x-tollmeter-` that only a key with `may_set_identity` may send."""
LABELS = {
    "operation": "feature",
    "feature": "feature",
    "agent": "agent",
    "session": "session_id",
    "request-id": "request_id",
    "environment": "environment",
    "service": "service",
    "trace-id": "trace_id",
    "span-id": "span_id",
}
"""Headers that any caller may send: they sort his own calls."""
KEY_TAG = "server_key"
"""Tag with the id of the key that the caller holds: many may use one key of the provider."""
_TAGS, _KEY = "tags", "key"
_KNOWN = frozenset((*IDENTITY, *LABELS, _TAGS, _KEY))


def scope_of(caller: Caller, headers: Sequence[tuple[str, str]]) -> Scope:
    """Return the scope of a caller's calls. Raises `Problem` 403 for what the key may not say, else 400."""
    fields: dict[str, object] = {"org_id": caller.org_id}
    said: dict[str, str] = {}
    for name, value in headers:
        label = name.removeprefix(PREFIX)
        if label in (name, _KEY) or not value:
            continue
        field = IDENTITY.get(label) or LABELS.get(label) or label
        if label not in _KNOWN:
            known = ", ".join(PREFIX + one for one in sorted(_KNOWN))
            raise Problem(400, "unknown_header", f"no header {name[:80]}: there are {known}")
        if said.setdefault(field, value) != value:
            raise Problem(400, "several_values", f"{name} is given twice, or beside another header of its meaning")
    for label, field in IDENTITY.items():
        if field in said and said[field] != fields.get(field) and not caller.may_set_identity:
            raise Problem(
                403, "identity_not_allowed", f"this key may not say {PREFIX}{label}: it needs may_set_identity"
            )
    tags = _tags(said.pop(_TAGS, "")) | ({KEY_TAG: caller.key_id} if caller.key_id else {})
    return Scope().with_fields({**fields, **said, **({_TAGS: tags} if tags else {})})


def _tags(text: str) -> dict[str, str]:
    """Return `team=search,tier=gold` as tags."""
    pairs = [part.partition("=") for part in text.split(",") if part.strip()]
    if any(not name.strip() or not equals for name, equals, _ in pairs):
        raise Problem(400, "bad_tags", f"{PREFIX}{_TAGS} is written name=value,name=value")
    return {name.strip(): value.strip() for name, _, value in pairs}
