"""ClickHouse: does it answer, is it new enough, are all tables there and may we use them; clock, disk, news."""

import re
import time
from collections.abc import Iterator

from tollmeter.doctor.check import Check, judged
from tollmeter.doctor.machine import disk
from tollmeter.settings import Settings, SettingsError
from tollmeter.sinks.clickhouse import migrate
from tollmeter.sinks.clickhouse.client import ClickHouse, Rejected, Unavailable, connect_existing
from tollmeter.sinks.clickhouse.codes import UNKNOWN_DATABASE

OLDEST = (26, 2)
SKEW_S = 60.0
RIGHTS = ("SELECT", "INSERT", "ALTER", "CREATE TABLE", "CREATE VIEW", "DROP TABLE")
_REFUSED_SHARE, _UNPRICED_SHARE = 0.001, 0.01


def clickhouse(settings: Settings) -> Iterator[Check]:
    """Look at ClickHouse; nothing further is asked of one that does not answer."""
    name = "ClickHouse"
    try:
        client = connect_existing(settings)
    except Unavailable as error:
        missing = error.code == UNKNOWN_DATABASE
        do = "tollmeter setup" if missing else "start it with 'tollmeter up', or set TOLLMETER_CLICKHOUSE"
        yield Check(name, "wrong", str(error)[:300], do)
        return
    except SettingsError as error:
        yield Check(name, "wrong", str(error), "mend the setting")
        return
    try:
        yield from _looks(settings, client)
    except (Unavailable, Rejected) as error:
        yield Check(name, "wrong", str(error)[:300], "docs/runbook.md, ClickHouse is away")
    finally:
        client.close()


def _looks(settings: Settings, client: ClickHouse) -> Iterator[Check]:
    text = str(client.query("SELECT version() AS v")[0]["v"])
    found = tuple(int(part) for part in re.findall(r"\d+", text)[:2])
    yield judged("ClickHouse", f"{settings.clickhouse}, version {text}", found < OLDEST, "use 26.2 or newer")
    yield _tables(settings)
    yield _grants(settings, client)
    began = time.time()
    ahead_s = float(client.query("SELECT toFloat64(now64(3)) AS t")[0]["t"]) - (began + time.time()) / 2
    yield judged("clock of ClickHouse", f"{ahead_s:+.1f} s", abs(ahead_s) > SKEW_S, "let both clocks follow NTP")
    for row in client.query("SELECT name, free_space, total_space FROM system.disks"):
        if row["total_space"]:
            yield disk(f"disk {row['name']} of ClickHouse", int(row["free_space"]), int(row["total_space"]))
    yield _refused(client)
    yield _unpriced(client)
    yield _alerts(client)


def _tables(settings: Settings) -> Check:
    try:
        pending = migrate.pending(settings)
    except migrate.SchemaError as error:
        return Check("tables", "wrong", str(error), "run the newest tollmeter")
    if pending and all(": keep " in name for name in pending):  # the line has other settings than this command
        found = f"other retention than these settings say: {', '.join(pending)}"
        return Check("tables", "warning", found, "set TOLLMETER_RETENTION_* here as for the line, or there as here")
    found = f"to be made: {', '.join(pending[:6])}" if pending else "all there, newest schema"
    return judged("tables", found, bool(pending), "tollmeter setup (a running LEDGER does it within seconds)")


def _grants(settings: Settings, client: ClickHouse) -> Check:
    name, database = "rights in ClickHouse", settings.clickhouse_database
    try:
        lacking = [right for right in RIGHTS if client.answer(f"CHECK GRANT {right} ON {database}.*") != "1"]
    except (Rejected, Unavailable) as error:
        return Check(name, "unknown", f"{type(error).__name__}: {str(error)[:150]}")
    found = (
        f"{settings.clickhouse_user} lacks {', '.join(lacking)}" if lacking else f"{settings.clickhouse_user} may all"
    )
    do = "'tollmeter setup --dry-run --statements' prints the grants; a reader needs none but SELECT"
    return judged(name, found, bool(lacking), do, "warning")


def _refused(client: ClickHouse) -> Check:
    row = client.query(
        "SELECT toInt64(sum(records)) AS records, toInt64(sum(rejected)) AS rejected FROM "
        "(SELECT DISTINCT source_partition, first_offset, records, rejected FROM ledger_coverage "
        "WHERE inserted_at > now() - INTERVAL 1 DAY)"
    )[0]
    found = f"{row['rejected']:,} of {row['records']:,} records of a day"
    bad = row["rejected"] > _REFUSED_SHARE * row["records"]
    return judged("dead letters", found, bad, "tollmeter dlq list --since 24h", "warning")


def _unpriced(client: ClickHouse) -> Check:
    row = client.query(
        "SELECT count() AS calls, countIf(price_status = 'UNKNOWN_MODEL') AS unpriced FROM usage_events FINAL "
        "WHERE event_time > now() - INTERVAL 1 DAY"
    )[0]
    found = f"{row['unpriced']:,} of {row['calls']:,} calls of a day have no price"
    bad = row["unpriced"] > _UNPRICED_SHARE * row["calls"]
    return judged(
        "stale price book", found, bad, "upgrade tollmeter, or add prices to TOLLMETER_PRICES_FILE", "warning"
    )


def _alerts(client: ClickHouse) -> Check:
    rows = client.query(
        "SELECT DISTINCT kind FROM alerts FINAL WHERE scope = 'pipeline' AND severity = 'critical' "
        "AND received_at > now() - INTERVAL 1 DAY ORDER BY kind"
    )
    found = ", ".join(row["kind"] for row in rows) or "none of a day"
    return judged("critical alerts about the line", found, bool(rows), "docs/runbook.md has a page for each", "warning")
