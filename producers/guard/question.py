"""What a guard is asked about one call: frozen, with the names that the call's event will bear.

Whatever an application passes on of its users, there is a question: names are cleaned, what is no count is the worst.
"""

from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple, Self

from tollmeter.producers.guard.answers import Version
from tollmeter.producers.guard.limits import Caller, tag_names
from tollmeter.schemas.addresses import caller_form
from tollmeter.schemas.event import MAX_TOKENS
from tollmeter.schemas.texts import MAX_TEXT_CHARS, clean_tags, clean_text, worst_count

FAR = 1 << 62


class Question(NamedTuple):
    """One call before it is made. A field that is None or empty is not known.

    Prompt tokens are `prompt_tokens`, else what the guard's tokenizer makes of `prompt`, else a quarter of its
    characters. `groups` are added to those that the membership knows. `counted` names the kinds of caller (api_key,
    client_ip) whose rate limit has counted this call already, because `admit` let its request in.
    """

    model: str
    prompt_chars: int | None = None
    prompt_tokens: int | None = None
    prompt: str | None = None
    max_output_tokens: int | None = None
    answers: int | None = None
    """How many answers are asked for, where `max_output_tokens` does not say it: each may be as long as is usual."""
    user: str | None = ""
    groups: Collection[str] = ()
    org: str | None = ""
    api_key_id: str | None = ""
    client_ip: str | None = ""
    provider: str | None = ""
    api_host: str | None = ""
    """The host that is called: it settles the provider, where the price book knows it."""
    service_tier: str | None = ""
    """The tier that is asked for (priority, fast ...): it may be dearer."""
    agent: str | None = ""
    feature: str | None = ""
    session_id: str | None = ""
    trace_id: str | None = ""
    """The run that the call belongs to: all calls under one trace."""
    tags: Mapping[str, str] | None = None
    models: Collection[str] = ()
    """Further models that the call names, each of which must be allowed, too."""
    downgrades: bool = False
    """Whether the caller will send another model where the decision names one."""
    billing_scope: str = "ORG"
    """Who pays: ORG, or USER, whose calls are not asked for budgets."""
    counted: Collection[str] = ()
    event: Mapping[str, Any] = {}
    """Further fields of the event of a refusal (service, request_id ...)."""

    @classmethod
    def of(cls, model: str, about: dict[str, Any]) -> Self:
        """Return the question about a model; keywords that are no field of a question belong to the event."""
        asked: dict[str, Any] = {name: _cleaned(name, value) for name, value in about.items() if name in _ASKED}
        if len(asked) < len(about):
            asked["event"] = {name: value for name, value in about.items() if name not in _ASKED}
        if isinstance(model, str) and len(model) > MAX_TEXT_CHARS:  # what is cut off may be another model
            asked["models"] = (*asked.get("models", ()), "")
        return cls(clean_text(model), **asked)

    @property
    def address(self) -> str:
        """The caller's address in its one form; "" when it is not known."""
        return caller_form(str(self.client_ip)) if self.client_ip else ""

    @property
    def paying(self) -> tuple[tuple[str, str], ...]:
        """Kind and name of each caller that a rate limit is about, but for those counted already."""
        paying = (("api_key", self.api_key_id or ""), ("client_ip", self.address))
        return tuple(one for one in paying if one[0] not in self.counted) if self.counted else paying

    def caller(self, provider: str, model: str, version: Version) -> Caller:
        """Return the names by which budgets are found; provider, model and version as the line counts them."""
        tags = tag_names(self.tags) if self.tags else ()
        known = self.user or "", tuple(self.groups), self.api_key_id or "", self.address, self.agent or ""
        asked = self.feature or "", self.session_id or "", self.trace_id or ""
        return *known, model, provider, tags, version, *asked

    def event_fields(self) -> dict[str, Any]:
        """Return the fields of the event that records a refusal."""
        return {
            "model_sent": self.model,
            "org_id": self.org,
            "user_id": self.user,
            "group_id": next(iter(self.groups), ""),
            "api_key_id": self.api_key_id,
            "client_ip": self.address,
            "provider": self.provider,
            "api_host": self.api_host,
            "service_tier": self.service_tier,
            "agent": self.agent,
            "feature": self.feature,
            "session_id": self.session_id,
            "trace_id": self.trace_id,
            "tags": dict(self.tags or {}),
            "billing_scope": self.billing_scope,
            "prompt_chars": self.prompt_chars,
            **self.event,
        }


def _cleaned(name: str, value: object) -> object:
    """Return a value fit for a question; one whose own code fails is the worst of its kind."""
    try:
        return _CLEAN[name](value)
    except Exception:
        return _WORST.get(name, "")


def _paid_by(value: object) -> str:
    """Return who pays a call, as events know it; what is none of their words counts as the organisation's."""
    scope = clean_text(value)
    return scope if scope in ("ORG", "USER") else "UNKNOWN"


def _names(value: object) -> tuple[str, ...]:
    """Return several names; one text is one name."""
    if isinstance(value, str) or not isinstance(value, Collection):
        return (clean_text(value),) if value else ()
    return tuple(map(clean_text, value))


_CLEAN: dict[str, Callable[[Any], Any]] = {
    "prompt_chars": worst_count,
    "prompt_tokens": worst_count,
    "prompt": lambda value: value if value is None or isinstance(value, str) else clean_text(value, FAR),
    "max_output_tokens": worst_count,
    "answers": worst_count,
    "groups": _names,
    "tags": clean_tags,
    "counted": _names,
    "models": _names,
    "downgrades": lambda value: value is True,
    "billing_scope": _paid_by,
}
_CLEAN |= dict.fromkeys(("user", "org", "api_key_id", "client_ip", "provider", "api_host", "agent"), clean_text)
_CLEAN |= dict.fromkeys(("feature", "session_id", "trace_id", "service_tier"), clean_text)
_ASKED = _CLEAN.keys()
_WORST: dict[str, object] = {
    **dict.fromkeys(("prompt_chars", "prompt_tokens", "max_output_tokens", "answers"), MAX_TOKENS),
    **dict.fromkeys(("groups", "counted"), ()),
    "models": ("",),
    "tags": {},
    "downgrades": False,
    "billing_scope": "UNKNOWN",
}
"""What a field is whose value cannot be read at all."""
