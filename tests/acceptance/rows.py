"""The table of what tollmeter must do: one row a line, in plain words, with what is still missing of it."""

from dataclasses import dataclass

from tests.acceptance.checks import MISSING, PARTLY, WORKS

GROUPS = {
    "U": "The shape: events in, prices, windows, alerts, tables, boards",
    "A": "Finding a leak",
    "B": "Tokens and money on a billing page",
    "C": "Cost limits of organisations, groups and users",
    "D": "Usage sent over HTTP, and its page",
    "E": "A monthly budget with fallback",
    "P": "What a careful meter has besides",
    "Q": "What people asked for in 2026",
}


@dataclass(frozen=True, slots=True)
class Row:
    """What a row is, and which steps of its test do not hold yet (`missing`: none does)."""

    code: str
    words: str
    gaps: tuple[str, ...] = ()
    missing: bool = False

    def __contains__(self, words: object) -> bool:
        """Say whether a step is declared as missing."""
        return self.missing or words in self.gaps

    @property
    def state(self) -> str:
        """works, missing, or partly with the gaps."""
        if self.missing:
            return MISSING
        return PARTLY + "; ".join(self.gaps) if self.gaps else WORKS


ROWS = (
    Row(
        "U1",
        "A producer library that never blocks or breaks the call, survives outages and forks, and counts its drops",
    ),
    Row("U2", "Every call is priced at the price in force when it was made"),
    Row(
        "U3",
        "Totals per minute, hour, day and month by key, address, user, group, organisation, agent, model, operation",
    ),
    Row(
        "U4",
        "Alerts within a second, also while ClickHouse is away; old data alerts nobody",
    ),
    Row("U5", "Calls and totals in ClickHouse for anyone's SQL: a read-only user, plain views, example queries"),
    Row("U6", "Grafana boards and alert rules, shipped as code", gaps=("shown by a real Grafana",)),
    Row("U7", "Alerts reach a log, a signed webhook, mail and chat: at least once, told once, retried, digested"),
    Row(
        "U8",
        "`docker compose up` brings up Kafka, ClickHouse, Grafana and the workers",
        gaps=("`docker compose up` brings it all up",),
    ),
    Row("A1", "The 20 dearest calls of the last 24 hours: who, what, from where, what it cost"),
    Row("A2", "The last 48 hours by model and key, dearest first, in USD with four decimals"),
    Row("A3", "Today's cost per model and key over HTTP, for a read token or an identity token"),
    Row(
        "A4",
        "A cap on what one call may cost, checked before it leaves; the refusal is an event that costs nothing",
    ),
    Row(
        "A5",
        "The structured log line, exported and imported from files, pipes and Google Cloud Logging",
    ),
    Row("A6", "A monthly budget that tells operations by mail at 20, 50 and 80 %, and a hard cap per key"),
    Row(
        "A7",
        "Suspicious keys and addresses are found: loops, floods, storms, repeats, one that dominates",
    ),
    Row(
        "A8",
        "A rate limit per address in guard and proxy, changed without a restart, with an expiry",
    ),
    Row("A9", "Our cost against the provider's bill, every difference with its cause"),
    Row("A10", "The service's id or the provider's finds the call, its ledger row and the rule that priced it"),
    Row(
        "A11",
        "Keys, addresses and users are blocked and unblocked, with reason and expiry",
    ),
    Row("A12", "A registry of keys: label, owner, cost centre; old and new key under one label"),
    Row("A13", "A day's calls as CSV"),
    Row(
        "B1",
        "The table `token_usage` that a billing page reads, images included",
    ),
    Row("B2", "The billing page's endpoints: token summary and list, by model, agent and day"),
    Row(
        "B3",
        "Tables make and mend themselves wherever the program starts, and while it runs",
    ),
    Row("B4", "Cost in RUB and EUR at the rate of the call's day; unknown where there is no rate"),
    Row("C1", "Limits per organisation, group and user in micro-EUR, for each member or for all together"),
    Row("C2", "Which limits bind a user: his own policy whole, else the tightest of organisation and groups"),
    Row("C3", "What a user has spent and may still spend, in the document that clients know"),
    Row("C4", "A user's month by provider key: the 20 dearest, the rest in one line, adding up to the total"),
    Row(
        "C5", "Calls on a user's own key are nobody else's: never counted against the organisation, never refused by it"
    ),
    Row("C6", "A spent limit is the error CostLimitExceeded with its two exact texts"),
    Row("C7", "Policies are set, read and deleted; the organisation's cannot be; members decide by data"),
    Row("C8", "Spend, usage summary and price list of a user over HTTP"),
    Row("C9", "`explain` says which policy decided, and why"),
    Row("C10", "Usage that an answer lacks is estimated, and replaced when it becomes known"),
    Row(
        "C11",
        "Answers carry usage, cost, price status and the request's id",
    ),
    Row("D1", "Tracking tokens for usage sent over HTTP: list, make, switch off, delete"),
    Row("D2", "`POST /ingest` takes a call's counts, knows repeats, and refuses what cannot be"),
    Row("D3", "Data, models, metrics and reset for the admin; ping and health for everybody"),
    Row("D4", "`GET /metrics` as JSON, and as Prometheus text by negotiation"),
    Row("D5", "Rate limits on the doors, with Retry-After"),
    Row("D6", "A page with a live table, filters, totals, tokens and a safe CSV"),
    Row(
        "D7",
        "Browsers by allowed origins only; production without keys does not start; errors say nothing internal",
    ),
    Row("D8", "The settings of an older meter are understood, or warned about"),
    Row("D9", "Provider keys cannot be stored: /keys/* does not exist"),
    Row("D10", "Old databases are imported: usage log, token usage, operations"),
    Row(
        "E1",
        "A monthly budget per provider: an alert when little remains, a report whose last line says OK or ALERT",
    ),
    Row("E2", "This month's cost per operation, dearest first, in cents"),
    Row("E3", "A chain of providers: the next one serves when the budget is spent or the first fails"),
    Row("E4", "`probe` says whether a provider answers"),
    Row("E5", "What the rest of a budget still buys, per operation"),
    Row(
        "P1",
        "An event counts once, whatever is killed or repeated; conflicts and late ones are visible",
    ),
    Row("P2", "One reader for the answers of every provider, into the same counters"),
    Row("P3", "A price book with dates, sources and overrides; an unknown model is never free"),
    Row("P4", "Past calls priced again, with the difference and corrections"),
    Row(
        "P5",
        "Metering without a change of code: SDKs, LiteLLM, LangChain, OpenTelemetry, CloudEvents, other languages",
    ),
    Row("P6", "An export in the FOCUS format"),
    Row("P7", "Budgets hold for calls in flight, with a bound on the overshoot known beforehand"),
    Row("P8", "A forecast to the end of the period"),
    Row(
        "P9",
        "No prompts; addresses full, truncated or hashed; a person can be forgotten",
    ),
    Row("P10", "How long each table keeps its rows is a setting"),
    Row("P11", "`verify` counts records, rejects, repeats and rows, each on its own, and they add up"),
    Row("P12", "Records that could not be read are listed, shown and tried again"),
    Row(
        "P13",
        "Health, metrics, a runbook page for every alert, a restore that was drilled",
    ),
    Row("P14", "For whoever is on call: live burn rates, what changed, services that fell silent"),
    Row(
        "P15",
        "The month is closed: a frozen statement, later changes as adjustments, doubts beside every total",
    ),
    Row("P16", "For whoever runs it: doctor, dry-run set-up with grants, upgrades, sizing, backup"),
    Row("P17", "The first minutes: send a call, see it land, learn why a cost is empty"),
    Row(
        "Q1",
        "Coding agents by their own telemetry: cost per developer, repository, session; subscriptions apart",
    ),
    Row(
        "Q2",
        "Zero code: OTLP, LiteLLM, CloudEvents, a metering proxy, `tollmeter run`",
    ),
    Row(
        "Q3",
        "A default budget for whoever has none; budgets per session, agent and run",
    ),
    Row("Q4", "A budget raised until a time, or reset, with who and why"),
    Row("Q5", "Which models a key, user or group may use; else refused or downgraded"),
    Row("Q6", "A policy tried out on the last 30 days"),
    Row("Q7", "One reporting time zone everywhere, printed beside each total"),
    Row("Q8", "No total without its age, and how much of it is estimated, unpriced, at risk, corrected"),
    Row("Q9", "A read-only MCP server: spend, why, top calls, budgets"),
    Row("Q10", "`tollmeter top`: live spend, also with ClickHouse away"),
)
BY_CODE = {row.code: row for row in ROWS}
