"""`tollmeter mcp`: spend, calls and budgets for an assistant, over the Model Context Protocol. Nothing is written.

The tools ask what reports ask, and answer for the organisation of the key in TOLLMETER_READ_KEY alone.
"""

import asyncio
import os
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, TypeVar, cast
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import click

from tollmeter.admin.model_rules import Call, explained, model_rules
from tollmeter.admin.reader_key import NoReaderError, readable_org
from tollmeter.admin.reports import questions
from tollmeter.admin.reports.asked import NO_FILTER, Asked
from tollmeter.admin.reports.questions import BY, CALL, SPEND
from tollmeter.admin.reports.rows import document, plain
from tollmeter.admin.secret import SecretError
from tollmeter.broker.policies import PolicyError, read_rules
from tollmeter.broker.registry import RegistryError
from tollmeter.cli.output import UserError
from tollmeter.cli.report_options import period
from tollmeter.installing import how_to_get
from tollmeter.schemas.escapes import MOST_CHARS, many_lines, seen_values
from tollmeter.settings import Settings
from tollmeter.sinks.clickhouse.client import ClickHouse, Rejected, Unavailable, connect_existing
from tollmeter.sinks.clickhouse.queries import load

READ_KEY = "TOLLMETER_READ_KEY"
MOST = 200
"""Rows of one answer: an assistant reads all of them."""
_ABOUT = (
    "LLM usage and cost of an organisation. Amounts are USD; null is not known and never 0: `unpriced` says how many "
    "calls have no known price, `usd_at_risk` what they may cost. `age_s` is how old the newest event is. Periods are "
    "half-open, times without an offset are of `zone`."
)
Document = dict[str, Any]
_Value = TypeVar("_Value")


@click.command()
@click.pass_obj
def mcp(settings: Settings) -> None:
    """Serve spend, calls and budgets to an assistant on standard input and output (Model Context Protocol).

    It reads, and shows the organisation of the key in TOLLMETER_READ_KEY (`server-key create --role read`).
    """
    presented = os.environ.get(READ_KEY, "").strip()
    if not presented:
        raise UserError(f"{READ_KEY} is not set: make a key with 'tollmeter server-key create --role read'")
    try:
        org = readable_org(settings, presented, datetime.now(UTC))
    except (NoReaderError, RegistryError, SecretError) as error:
        raise UserError(f"{READ_KEY}: {error}") from None
    serve(Tools(settings, org))


def serve(tools: "Tools") -> None:
    """Answer until the other side closes its end. Raises `UserError` where the library is absent."""
    try:
        from mcp.server import MCPServer
        from mcp_types import ToolAnnotations
    except ModuleNotFoundError:
        raise UserError(f"it needs the library of the protocol: {how_to_get('mcp')}") from None

    server = MCPServer("tollmeter", instructions=_ABOUT, log_level="ERROR")
    for tool in (tools.spend_by, tools.top_calls, tools.why, tools.budgets, tools.allowed_models):
        server.tool(annotations=ToolAnnotations(read_only_hint=True, open_world_hint=False))(tool)
    server.run("stdio")


class Tools:
    """The questions, each a tool under its own name; what is wrong in one is said in a sentence."""

    def __init__(self, settings: Settings, org: str) -> None:
        self._settings, self._org = settings, org

    async def spend_by(
        self, by: list[str], since: str = "24h", until: str = "", zone: str = "UTC", top: int = 50
    ) -> Document:
        """Spend of a period by one or several of model, key, label, user, org, group, agent, ip, provider, operation,
        session, service, status, hour, day, week, month; dearest first, with the totals of the whole period.

        since: a span back from now (30m, 24h, 7d) or a time; until: a time, else now; zone: whose days and hours count.
        """
        wrong = [name for name in by if name not in BY]
        if wrong or not by:
            raise _wrong(f"no column {', '.join(wrong) or 'named'}: choose from {', '.join(BY)}")
        asked = self._asked(since, until, zone)
        answered = await self._ask(lambda ledger: questions.spend(ledger, asked, by, min(top, MOST)))
        rows = document(answered.rows, [*(BY[name] for name in by), *SPEND])
        return _seen(questions.document(answered, asked, rows, datetime.now(UTC)))

    async def top_calls(self, since: str = "24h", until: str = "", zone: str = "UTC", top: int = 20) -> Document:
        """The dearest calls of a period: when, which model, how many tokens, what it cost, which address and key."""
        asked = self._asked(since, until, zone)
        answered = await self._ask(lambda ledger: questions.top_calls(ledger, asked, min(top, MOST)))
        return _seen(questions.document(answered, asked, document(answered.rows, CALL), datetime.now(UTC)))

    async def why(self, id: str) -> Document:  # noqa: A002 -- the name that callers see
        """Why one call cost what it did: its whole ledger row, and the rule of the price book with its rates.

        id: the service's request id, the provider's, or the event's.
        """
        asked = {"id": id, "orgs": [self._org] if self._org else [], "user_id": ""}
        rows = await self._ask(lambda ledger: ledger.query(load("find_call"), asked))
        return _seen({"calls": [plain(row) for row in rows]})

    async def budgets(self) -> Document:
        """Every limit in its current period, fullest first: amount and used, in its unit.

        applies: pool, what all calls of the scope use together; each_member, what the user, key, agent, session or run
        of this name may use for itself, for everybody who has used some of it.

        A currency's amounts are nano-units of it; other units are tokens and requests.
        """
        asked = {"org_id": self._org, "user_id": "", "top": MOST}
        rows = await self._ask(lambda ledger: ledger.query(load("budget_list"), asked))
        return _seen({"budgets": [plain(row) for row in rows]})

    async def allowed_models(
        self, user: str = "", groups: list[str] | None = None, api_key: str = "", provider: str = "", model: str = ""
    ) -> Document:
        """Which models a call may use, by which rules, and whether one is allowed, refused or downgraded.

        groups: further groups that the call names; provider and model: as the call names them. `allowed` null: any.
        """
        if not self._org:
            raise _wrong("the key is for all organisations: rules about models belong to one, ask with a key of it")

        def answer() -> Document:
            rules = read_rules(self._settings)
            found = {*rules.groups.of(self._org, user), *rules.groups.closure(self._org, groups or ())}
            call = Call(user, found, api_key, provider, model)
            return explained(self._settings, model_rules(self._settings, self._org), call).document

        try:
            return _seen(await asyncio.to_thread(answer))
        except PolicyError as error:
            raise _wrong(f"the rules cannot be read: {error}") from None

    def _asked(self, since: str, until: str, zone: str) -> Asked:
        try:
            known = ZoneInfo(zone)
            begin, end = period(since, until or None, [], known, datetime.now(UTC))
        except (ZoneInfoNotFoundError, OSError):
            raise _wrong(f"unknown time zone {zone!r}: write for example UTC or Europe/Berlin") from None
        except click.ClickException as error:
            raise _wrong(error.format_message()) from None
        return Asked(begin, end, known, {**NO_FILTER, "org_id": self._org})

    async def _ask(self, question: Callable[[ClickHouse], _Value]) -> _Value:
        def answer() -> _Value:
            client = connect_existing(self._settings)
            try:
                return question(client)
            finally:
                client.close()

        try:
            return await asyncio.to_thread(answer)
        except (Unavailable, Rejected) as error:
            raise _wrong(f"the ledger does not answer: {error}") from None


def _seen(found: Mapping[str, object]) -> Document:
    """Return an answer with what cannot be seen spelled out: to an assistant a name may be an instruction."""
    return cast("Document", seen_values(found))


def _wrong(text: str) -> Exception:
    """Return the error whose words the assistant is shown; others are a bug, and theirs are not."""
    from mcp.server.mcpserver.exceptions import ToolError

    error: Exception = ToolError(many_lines(text, MOST_CHARS))
    return error
