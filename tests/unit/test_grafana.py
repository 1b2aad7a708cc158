"""The boards as files: what Grafana loads is what the code says, complete, and made of Grafana's own types."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard

from tests.grafana import ALL, Range, UnknownMacroError, expanded
from tollmeter.dashboards.grafana.generate import BOARDS, HERE, files
from tollmeter.dashboards.grafana.model import USD, Panel
from tollmeter.dashboards.grafana.render import BOARDS as TITLES
from tollmeter.dashboards.grafana.render import LABELS, SOURCE_TYPE, SOURCE_UID

ROOT = Path(__file__).resolve().parents[2]
FILES = files()
SHOWN = {name: json.loads(text) for name, text in FILES.items() if name.endswith(".json")}
PANELS = [pytest.param(panel, id=f"{board.uid}-{panel.title}") for board in BOARDS for panel in board.panels]
HOUR = Range(1_795_341_600_000, 1_795_345_200_000, 30)
VIEWS = {file.name[5:-4] for file in (ROOT / "sinks/clickhouse/sql").glob("*.sql")}
"""Every table and view, and the comments on them."""


def test_generated_is_committed() -> None:
    """`python -m tollmeter.dashboards.grafana.generate` writes them anew."""
    there = {
        path.relative_to(HERE).as_posix() for kind in ("boards", "provisioning") for path in (HERE / kind).rglob("*.*")
    }
    assert there == set(FILES)
    for name, text in FILES.items():
        assert (HERE / name).read_text(encoding="utf-8") == text, name


@pytest.mark.parametrize("name", SHOWN)
def test_a_board_survives_the_types_of_the_sdk(name: str) -> None:
    register_default_plugins()
    again = json.dumps(Dashboard.from_json(SHOWN[name]), cls=JSONEncoder)
    assert json.loads(again) == SHOWN[name]


@pytest.mark.parametrize("name", SHOWN)
def test_a_board_is_whole(name: str) -> None:
    """Ids, places, filters, links: what a person finds out only when something is missing."""
    board: dict[str, Any] = SHOWN[name]
    assert board["uid"] == Path(name).stem
    assert board["schemaVersion"] >= 39
    assert int(board["refresh"].rstrip("smh")) * {"s": 1, "m": 60, "h": 3_600}[board["refresh"][-1]] >= 10
    panels = board["panels"]
    assert len({one["id"] for one in panels}) == len(panels)
    assert len({one["title"] for one in panels}) == len(panels)
    places = [[one["gridPos"][at] for at in "xywh"] for one in panels]
    cells = [(x + i, y + j) for x, y, w, h in places for i in range(w) for j in range(h)]
    assert len(set(cells)) == len(cells), "panels lie over each other"
    assert max(x for x, _ in cells) < 24
    variables = {one["name"] for one in board["templating"]["list"]}
    used = {name for one in panels for name in re.findall(r"\$\{(\w+):", one["targets"][0]["rawSql"])}
    assert used | {"datasource"} <= variables <= {"datasource", "zone", *LABELS}
    uids = {f"/d/{uid}" for uid in TITLES}
    assert {Path(other).stem for other in SHOWN} == set(TITLES)
    links = [link["url"] for one in panels for link in one["links"]] + [link["url"] for link in board["links"]]
    assert len(links) >= len(panels)
    assert {link.partition("?")[0] for link in links} <= uids


@pytest.mark.parametrize("name", SHOWN)
def test_every_panel_says_what_it_shows(name: str) -> None:
    for one in SHOWN[name]["panels"]:
        assert one["type"] in ("stat", "table", "timeseries", "bargauge"), "no pies"
        assert one["description"].endswith((".", "`"))
        assert one["fieldConfig"]["defaults"]["unit"]
        assert one["fieldConfig"]["defaults"]["noValue"]
        assert one["datasource"] == {"type": SOURCE_TYPE, "uid": "${datasource}"}
        for target in one["targets"]:
            assert target["datasource"] == one["datasource"]
            assert target["queryType"] == ("timeseries" if one["type"] == "timeseries" else "table")


@pytest.mark.parametrize("panel", PANELS)
def test_a_total_says_what_is_not_in_it(panel: Panel) -> None:
    """Beside each sum of cost stand the calls without a price and what they may cost; a graph says where to look."""
    if panel.kind == "series":
        assert "USD" not in panel.shown() or "What is not in it" in panel.about
    elif any(name.startswith("USD") for name in panel.shown()):
        assert {"unpriced", "USD at risk"} <= set(panel.shown()), panel.title


@pytest.mark.parametrize("panel", PANELS)
def test_sql_is_bounded_and_reads_views_alone(panel: Panel) -> None:
    assert re.search(r"\nLIMIT \d+$|LIMIT 1$", panel.sql), "the plug-in's own limit does not hold with alerts"
    tables = set(re.findall(r"(?:FROM|JOIN) (\w+)", panel.sql))
    assert tables <= VIEWS
    assert all("VIEW" in _made(table) for table in tables), "tables are not for boards"
    assert "FINAL" not in panel.sql
    assert panel.unit != USD or panel.shown()


def _made(table: str) -> str:
    [first, *_] = sorted((ROOT / "sinks/clickhouse/sql").glob(f"[0-9][0-9][0-9][0-9]_{table}.sql"))
    return next(line for line in first.read_text(encoding="utf-8").splitlines() if line.startswith("CREATE"))


@pytest.mark.parametrize("panel", PANELS)
def test_every_macro_is_known(panel: Panel) -> None:
    one = {"zone": "UTC", **dict.fromkeys(LABELS, ("it's", "b"))}
    for values in ({"zone": "UTC"}, one):
        assert "$" not in expanded(panel.sql, HOUR, values)
    for board in SHOWN.values():
        for variable in board["templating"]["list"]:
            if variable["type"] == "query":
                assert "LIMIT" in expanded(variable["query"], HOUR)


@pytest.mark.parametrize(
    ("sql", "wanted"),
    [
        ("$__timeFilter(t)", "t >= toDateTime(1795341600) AND t <= toDateTime(1795345200)"),
        ("$__timeInterval(t)", "toStartOfInterval(toDateTime(t), INTERVAL 30 second)"),
        ("$__fromTime_ms", "fromUnixTimestamp64Milli(1795341600000)"),
        ("f($__toTime)", "f(toDateTime(1795345200))"),
        ("$__dateFilter(d)", "d >= toDate('2026-11-22') AND d <= toDate('2026-11-22')"),
        ("$__conditionalAll(a IN (${org:singlequote}), $org)", "a IN ('x\\'y','z')"),
        ("$__conditionalAll(b IN (${user:singlequote}), $user)", "1=1"),
        ("${zone:sqlstring}", "'U''TC'"),
    ],
)
def test_macros_as_the_plug_in_expands_them(sql: str, wanted: str) -> None:
    values = {"org": ("x'y", "z"), "user": ALL, "zone": "U'TC"}
    assert expanded(sql, HOUR, values) == wanted


@pytest.mark.parametrize("sql", ["$__timeFiltre(t)", "$__columns(a, b)", "$__timeFilter(a, b)", "$gone", "${org:csv}"])
def test_an_unknown_macro_is_an_error(sql: str) -> None:
    with pytest.raises(UnknownMacroError):
        expanded(sql, HOUR, {"org": "a"})


def test_the_data_source_reads_as_its_own_user() -> None:
    (source,) = yaml.safe_load(FILES["provisioning/datasources/tollmeter.yaml"])["datasources"]
    assert (source["type"], source["uid"]) == (SOURCE_TYPE, SOURCE_UID)
    assert source["jsonData"]["username"] == "grafana"
    assert source["secureJsonData"] == {"password": "$CLICKHOUSE_GRAFANA_PASSWORD"}


RULES: list[dict[str, Any]] = yaml.safe_load(FILES["provisioning/alerting/tollmeter.yaml"])["groups"][0]["rules"]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["uid"])
def test_an_alert_rule_is_whole_and_leads_to_the_runbook(rule: dict[str, Any]) -> None:
    """Misspelt keys are dropped silently by Grafana; a `$` in a label would be a variable of its environment."""
    assert set(rule) == {
        *("uid", "title", "condition", "for", "keepFiringFor", "noDataState", "execErrState"),
        *("labels", "annotations", "data"),
    }
    assert "$" not in json.dumps(rule["labels"])
    assert [part["refId"] for part in rule["data"]] == ["A", "B", "C"]
    page, _, anchor = rule["annotations"]["runbook_url"].partition("#")
    headings = re.findall(r"^### (.+)$", (ROOT / page).read_text(encoding="utf-8"), re.MULTILINE)
    assert anchor in {heading.strip("`").lower().replace(" ", "-") for heading in headings}
    assert rule["annotations"]["__dashboardUid__"] in TITLES
    assert f"boards/{rule['annotations']['__dashboardUid__']}.json" in FILES
    question = rule["data"][0]["model"]["rawSql"]
    assert re.search(r"\nLIMIT \d+$", question)
    assert set(re.findall(r"(?:FROM|JOIN) (\w+)", question)) <= VIEWS
