"""The users of a ClickHouse server of one's own and what each may do; the embedded engine's are those of its front."""

from typing import NamedTuple

from tollmeter.settings import Settings

BOARDS = (
    "alert_list",
    "budget_use",
    "line_batches",
    "line_gaps",
    "line_progress",
    "policies",
    "provider_bills",
    "usage",
    "usage_live",
    "usage_minutely",
)
"""The views that Grafana's boards ask; a view reads on behalf of who made it."""


class Grant(NamedTuple):
    """What a user may do, and why."""

    user: str
    rights: str
    on: str
    why: str

    @property
    def statement(self) -> str:
        return f"GRANT {self.rights} ON {self.on} TO {self.user}"


def grants(settings: Settings) -> list[Grant]:
    """Return the grants of a line's database, for the user of the settings, anybody's SQL, and Grafana."""
    database = settings.clickhouse_database
    writer = settings.clickhouse_user if settings.clickhouse_user != "default" else "writer"
    owned = "SHOW, SELECT, INSERT, ALTER, CREATE, DROP, TRUNCATE, OPTIMIZE"
    return [
        Grant(writer, owned, f"{database}.*", "workers, server and commands: the database is theirs"),
        Grant(writer, "SELECT", "system.*", "to know what is there, how much of it, and what is being changed"),
        Grant("reader", "SHOW, SELECT", f"{database}.*", "anybody's SQL; profile readonly=1"),
        *(Grant("grafana", "SELECT", f"{database}.{view}", "the boards; profile readonly=1") for view in BOARDS),
    ]
