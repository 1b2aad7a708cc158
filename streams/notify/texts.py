"""What people read: one line that says what happened, what it is made of, and the next command. Pure.

One template per kind; a fact that is missing or a kind that nobody knows leaves the alert's own words.
"""

from collections.abc import Callable, Sequence
from shlex import quote
from typing import Literal

from tollmeter.sinks.channels.message import Message
from tollmeter.streams.notify.evidence import Causes, Facts, grounds, money, shown, times, whom
from tollmeter.streams.notify.incidents import Standing
from tollmeter.streams.notify.notice import Notice
from tollmeter.streams.rules.anomalies.words import HOURLY, said
from tollmeter.streams.rules.anomalies.words import KINDS as SUSPICIONS
from tollmeter.streams.rules.limits.words import pace

_BLOCKABLE = {"api_key": "key", "client_ip": "ip", "user": "user"}


def amount(facts: Facts, name: str) -> str:
    """Show an amount of a limit: money in its currency, tokens and requests as counts. Raises `KeyError`."""
    if f"{name}_nano" in facts:
        return money(facts[f"{name}_nano"], str(facts.get("currency", "USD")))
    unit = str(facts["unit"])
    if unit in ("USD", "EUR", "RUB"):
        return money(facts[name], unit)
    value = facts[f"{name}_{unit}"] if f"{name}_{unit}" in facts else facts[name]
    return f"{value:,} {unit}"


def _budget(facts: Facts, causes: Causes) -> str:
    spent, limit = amount(facts, "spent"), amount(facts, "limit")
    verb = "used up" if facts["threshold_pct"] >= 100 else f"reached {facts['threshold_pct']} % of"
    return f"{whom(facts)} {verb} {_article(facts)} limit: {spent} of {limit} spent in {facts['period']}"


def _article(facts: Facts) -> str:
    words = {"day": "daily", "week": "weekly", "month": "monthly"}
    window = str(facts["window"])
    return f"its {words.get(window, window.removeprefix('rolling').removesuffix('h') + '-hour')}"


def _remaining(facts: Facts, causes: Causes) -> str:
    left = money(max(0, facts["limit_nano"] - facts["spent_nano"]), str(facts["currency"]))
    return f"{whom(facts)} has {left} left of {amount(facts, 'limit')} in {facts['period']}"


def _late_spend(facts: Facts, causes: Causes) -> str:
    return f"{whom(facts)}: {amount(facts, 'late')} arrived late and count into {facts['period']}, which had closed"


def _spike(facts: Facts, causes: Causes) -> str:
    cost, window = facts["cost_nano"], facts["window"]
    text = f"{whom(facts)} spent {money(cost)} within {'an' if window == 'hour' else 'a'} {window}"
    if risk := facts.get("at_risk_nano"):
        text += f", of which {money(risk)} at most, of calls whose price is not wholly known"
    usual, peak = causes.usual_nano, facts.get("past_peak_nano")
    if window == "hour" and usual:
        return f"{text}, {times(cost, usual)} × its usual"
    if peak:
        return f"{text}, {times(cost, peak)} × its dearest {window} so far"
    return f"{text}; it has no past to compare with"


def _ingest_loop(facts: Facts, causes: Causes) -> str:
    return (
        f"{whom(facts)} took in {facts['input_tokens']:,} tokens within an hour and put out "
        f"{facts['output_tokens']:,}: it looks like a loop"
    )


def _unpriced(facts: Facts, causes: Causes) -> str:
    return (
        f"{facts['unknown_model']:,} of {facts['calls']:,} calls of {whom(facts)} have no known price: "
        "their cost is missing from every total"
    )


def _suspicion(facts: Facts, causes: Causes) -> str:
    return f"{whom(facts)} {said(str(facts['kind']), facts)}"


def _pace(facts: Facts, causes: Causes) -> str:
    return f"{whom(facts)} {pace(str(facts['kind']), facts)}"


def _own_words(facts: Facts, causes: Causes) -> str:
    return shown(facts["text"])


_TEMPLATES: dict[str, Callable[[Facts, Causes], str]] = {
    "budget": _budget,
    "remaining": _remaining,
    "late_spend": _late_spend,
    "spend_spike": _spike,
    "ingest_loop": _ingest_loop,
    "unpriced": _unpriced,
    "burn_rate": _pace,
    "forecast": _pace,
    **dict.fromkeys((*SUSPICIONS, *HOURLY), _suspicion),
}


def _limit_commands(facts: Facts) -> tuple[str, ...]:
    org, scope = f"--org {quote(shown(facts.get('org_id', '')))}", str(facts.get("scope"))
    if scope == "org":
        return (f"tollmeter policy explain {org}",)
    return (f"tollmeter policy explain {org} --{scope.replace('_', '-')} {quote(shown(facts.get('name', '')))}",)


def _block_command(facts: Facts) -> tuple[str, ...]:
    kind = _BLOCKABLE.get(str(facts.get("scope")))
    if kind is None or not facts.get("name"):
        return ("tollmeter report calls --top 20",)
    name, org = (quote(shown(facts.get(part, ""))) for part in ("name", "org_id"))
    return (f"tollmeter block {kind} {name} --org {org}",)


def _models_command(facts: Facts) -> tuple[str, ...]:
    return (f"tollmeter policy models list --org {quote(shown(facts.get('org_id', '')))}",)


def _reconcile_command(facts: Facts) -> tuple[str, ...]:
    provider, month = (shown(facts.get(part, "")) for part in ("provider", "period"))
    if not provider:
        return ("tollmeter bills list",)
    return (f"tollmeter reconcile --provider {quote(provider)} --month {quote(month[:7])}",)


def _always(*commands: str) -> Callable[[Facts], tuple[str, ...]]:
    return lambda facts: commands


_NEXT: dict[str, Callable[[Facts], tuple[str, ...]]] = {
    "budget": _limit_commands,
    "remaining": _always("tollmeter report budget"),
    "burn_rate": _limit_commands,
    "forecast": _limit_commands,
    "late_spend": _always("tollmeter report spend --by key,model --since 7d"),
    "spend_spike": _block_command,
    "ingest_loop": _block_command,
    **dict.fromkeys((*SUSPICIONS, *HOURLY), _block_command),
    "unpriced": _always("tollmeter report spend --by model,status --since 24h"),
    "cap_refused": _always("tollmeter report calls --top 20"),
    "rate_limited": _always("tollmeter ratelimit list"),
    "blocked": _always("tollmeter block list"),
    "model_not_allowed": _models_command,
    "gap": _always("tollmeter verify"),
    "new_epoch": _always("tollmeter verify"),
    "paused": _always("tollmeter status"),
    "dlq_flood": _always("tollmeter dlq list"),
    "verify_difference": _always("tollmeter verify"),
    "bill_gap": _reconcile_command,
    "shadow_key": _reconcile_command,
    "pipeline_health": _always("tollmeter status"),
    "storm": _always("tollmeter alerts list --since 1h"),
}
KINDS = tuple(_NEXT)
"""Every kind that has a next command of its own."""


def opened(notice: Notice, causes: Causes, standing: Standing | None = None) -> tuple[str, str]:
    """Return title and body of the message that an alert opened; `standing`: that of its incident, if it has one."""
    facts = notice.facts
    try:
        said = _TEMPLATES.get(notice.kind, _own_words)(facts, causes)
    except (LookupError, TypeError, ValueError, ArithmeticError):
        said = shown(facts.get("text") or f"{notice.kind}: {whom(facts)}")
    said, made_of = shown(said), "; ".join(f"{cause.share_pct} % is {shown(cause.what)}" for cause in causes.top)
    commands = _NEXT.get(notice.kind, _always("tollmeter alerts list"))(facts)
    body = [f"{said}; {made_of}" if made_of else said]
    if notice.incident and standing is not None:
        body += grounds(notice, standing, causes)
    body += [f"next: {command}" for command in commands]
    if notice.incident and standing is not None:
        body.append(f"say what it was, real or expected: tollmeter anomalies feedback {notice.incident[:12]} real")
    body.append(f"alert {notice.id}; taken care of: tollmeter alerts ack {notice.id[:12]}")
    return title(notice, said), "\n".join(body)


def title(notice: Notice, said: str) -> str:
    """Return one line for a subject: how urgent, and what."""
    line = " ".join(said.split())
    line = f"{notice.change}: {line}" if notice.incident and notice.change != "opened" else line
    return f"[{notice.severity}] {line if len(line) <= 160 else line[:159] + '…'}"


def resolved(notice: Notice) -> tuple[str, str]:
    """Return title and body of the message that an alert is over; the same on every attempt."""
    said = notice.body.partition("\n")[0] or shown(notice.facts.get("text", notice.kind))
    head = f"[resolved] {notice.resolution}: {notice.title.partition('] ')[2] or said}"
    return head[:180], f"Resolved, {notice.resolution}. It was: {said}"


def digest(notices: Sequence[Notice]) -> tuple[str, str]:
    """Return title and body of one message about many alerts: counts by kind, and the most severe ones."""
    kinds: dict[str, int] = {}
    for notice in notices:
        kinds[notice.kind] = kinds.get(notice.kind, 0) + 1
    counts = ", ".join(f"{count} × {kind}" for kind, count in sorted(kinds.items(), key=lambda kv: (-kv[1], kv[0])))
    order = {"critical": 0, "warning": 1, "info": 2}
    worst = sorted(notices, key=lambda n: (order[n.severity], n.opened_s, n.id))[:10]
    lines = [f"{len(notices)} alerts: {counts}"]
    lines += [notice.title or title(notice, shown(notice.facts.get("text", notice.kind))) for notice in worst]
    if len(notices) > len(worst):
        lines.append(f"and {len(notices) - len(worst)} more")
    lines.append("next: tollmeter alerts list --since 24h")
    return f"[digest] {lines[0]}", "\n".join(lines)


def message(notice: Notice, about: Literal["opened", "resolved"]) -> Message:
    """Return the message that a notice opened or resolved."""
    title, body = (notice.title, notice.body) if about == "opened" else resolved(notice)
    key = notice.id if about == "opened" else f"{notice.id}.resolved"
    at_s = notice.opened_s if about == "opened" else notice.resolved_s or notice.opened_s
    return Message(key, about, notice.kind, notice.severity, title, body, at_s, notice.event)
