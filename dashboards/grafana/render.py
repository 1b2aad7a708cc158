"""Boards as JSON that Grafana 10 to 13 loads (the classic schema), through the types of Grafana's foundation SDK."""

import json
from dataclasses import dataclass

from grafana_foundation_sdk.builders import bargauge, dashboard, stat, table, timeseries
from grafana_foundation_sdk.builders import common as common_builders
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common
from grafana_foundation_sdk.models import dashboard as models

from tollmeter.dashboards.grafana.model import USD, Board, Panel, pages
from tollmeter.dashboards.grafana.sql import FILTERS, SINCE, UNTIL, ZONE

SOURCE_TYPE, SOURCE_UID = "grafana-clickhouse-datasource", "tollmeter-ch"
SOURCE = common.DataSourceRef(type_val=SOURCE_TYPE, uid="${datasource}")
BOARDS = {
    "tollmeter-spend": "Spend",
    "tollmeter-leak": "Leak",
    "tollmeter-budgets": "Budgets",
    "tollmeter-pipeline": "Pipeline",
    "tollmeter-reconcile": "Reconcile",
    "tollmeter-agents": "Coding agents",
}
"""uid and short title of every board."""
LABELS = {
    "org": "Organisation",
    "provider": "Provider",
    "model": "Model",
    "key": "Key",
    "user": "User",
    "feature": "Feature",
}
ZONES = (
    "UTC",
    "Europe/Berlin",
    "Europe/London",
    "Europe/Moscow",
    "America/New_York",
    "America/Los_Angeles",
    "Asia/Kolkata",
    "Asia/Tokyo",
)
_MANY = 500
"""Names offered by a variable, the dearest first: others can be typed."""


@dataclass(frozen=True, slots=True)
class Query:
    """A question to the ClickHouse plug-in, which the SDK has no type for."""

    sql: str
    series: bool

    def build(self) -> "Query":
        """Return itself: the SDK builds its parts."""
        return self

    def to_json(self) -> dict[str, object]:
        """Return the target of a panel: `format` 0 is a time series, 1 a table."""
        return {
            "refId": "A",
            "datasource": SOURCE.to_json(),
            "editorType": "sql",
            "queryType": "timeseries" if self.series else "table",
            "format": 0 if self.series else 1,
            "rawSql": self.sql,
        }


def render(board: Board) -> str:
    """Return a board as JSON text."""
    built = dashboard.Dashboard(board.title).uid(board.uid).description(board.about).tags(["tollmeter"])
    built = built.time(board.since, "now").refresh("1m").timezone("browser").readonly().version(1)
    built = built.tooltip(models.DashboardCursorSync.CROSSHAIR)
    for uid, title in BOARDS.items():
        if uid != board.uid:
            link = dashboard.DashboardLink(title).type(models.DashboardLinkType.LINK).url(f"/d/{uid}")
            built = built.link(link.include_vars(True).keep_time(True))
    zone = [_zone()] if any(ZONE in panel.sql for panel in board.panels) else []
    for variable in (_source(), *zone, *(_variable(name) for name in board.variables)):
        built = built.with_variable(variable)
    for number, (panel, place) in enumerate(zip(board.panels, pages(board), strict=True), 1):
        built = built.with_panel(_panel(panel, number, place))
    return json.dumps(built.build(), cls=JSONEncoder, indent=1, ensure_ascii=False, sort_keys=True) + "\n"


def _source() -> dashboard.DatasourceVariable:
    named = models.VariableOption(text="tollmeter", value=SOURCE_UID)
    return dashboard.DatasourceVariable("datasource").label("Data source").type(SOURCE_TYPE).current(named)


def _zone() -> dashboard.CustomVariable:
    options = [models.VariableOption(text=zone, value=zone, selected=zone == "UTC") for zone in ZONES]
    zone = dashboard.CustomVariable("zone").label("Day and month of").values(",".join(ZONES)).options(options)
    return zone.current(options[0]).allow_custom_value(True)


def _variable(name: str) -> dashboard.QueryVariable:
    """A filter by a column. Names with a quote or a backslash are not offered: Grafana cannot quote them."""
    column = FILTERS[name]
    sql = f"""SELECT {column}
FROM usage
WHERE event_time >= greatest({SINCE}, {UNTIL} - toIntervalDay(2)) AND event_time < {UNTIL} AND {column} != ''
    AND NOT match({column}, '[\\'\\\\\\\\]')
GROUP BY {column}
ORDER BY sum(cost_nano) DESC NULLS LAST, {column}
LIMIT {_MANY}"""
    every = models.VariableOption(text="All", value="$__all", selected=True)
    made = dashboard.QueryVariable(name).label(LABELS[name]).datasource(SOURCE).current(every)
    made = made.refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED).include_all(True).multi(True)
    return made.allow_custom_value(True).query(sql)


def _panel(panel: Panel, number: int, place: tuple[int, int]) -> common_builders.VizLegendOptions:
    """Return the builder of a panel; the legend's type above stands for any of the SDK's builders."""
    made = {"stat": _stat, "table": _table, "series": _series, "bars": _bars}[panel.kind](panel)
    x, y = place
    made = made.id(number).title(panel.title).description(panel.about).datasource(SOURCE).unit(panel.unit)
    made = made.grid_pos(models.GridPos(h=panel.height, w=panel.width, x=x, y=y)).no_value(panel.empty)
    made = made.with_target(Query(panel.sql, series=panel.kind == "series"))
    if panel.unit == USD:
        made = made.decimals(panel.decimals)
    link = dashboard.DashboardLink(f"More: {BOARDS[panel.deeper]}").type(models.DashboardLinkType.LINK)
    made = made.links([link.url(f"/d/{panel.deeper}?${{__url_time_range}}&${{__all_variables}}")])
    for column, unit in panel.units().items():
        properties = [models.DynamicConfigValue("unit", unit)]
        if unit != USD:
            properties.append(models.DynamicConfigValue("decimals", 0))
        made = made.override_by_name(column, properties)
    for column, variable in panel.columns.items():
        url = f"/d/{panel.deeper}?${{__url_time_range}}&var-{variable}=${{__value.raw:percentencode}}"
        made = made.override_by_name(
            column, [models.DynamicConfigValue("links", [{"title": "This one alone", "url": url}])]
        )
    return made


def _stat(panel: Panel) -> stat.Panel:
    made = stat.Panel().reduce_options(common_builders.ReduceDataOptions().calcs(["lastNotNull"]).values(False))
    made = made.graph_mode(common.BigValueGraphMode.NONE).text_mode(common.BigValueTextMode.VALUE_AND_NAME)
    if panel.warn is None:
        return made.color_mode(common.BigValueColorMode.NONE)
    amber, red = panel.warn
    steps = [
        models.Threshold(color="green"),
        models.Threshold(value=amber, color="orange"),
        models.Threshold(value=red, color="red"),
    ]
    return made.thresholds(dashboard.ThresholdsConfig().mode(models.ThresholdsMode.ABSOLUTE).steps(steps))


def _table(panel: Panel) -> table.Panel:
    return table.Panel().show_header(True).filterable(True)


def _series(panel: Panel) -> timeseries.Panel:
    legend = common_builders.VizLegendOptions().display_mode(common.LegendDisplayMode.TABLE).show_legend(True)
    legend = legend.placement(common.LegendPlacement.RIGHT).calcs(["sum"])
    stacked = common_builders.StackingConfig().mode(common.StackingMode.NORMAL)
    made = timeseries.Panel().legend(legend).draw_style(common.GraphDrawStyle.BARS).stacking(stacked).fill_opacity(70)
    return made.tooltip(common_builders.VizTooltipOptions().mode(common.TooltipDisplayMode.MULTI))


def _bars(panel: Panel) -> bargauge.Panel:
    made = bargauge.Panel().orientation(common.VizOrientation.HORIZONTAL).show_unfilled(False)
    return made.reduce_options(common_builders.ReduceDataOptions().values(True)).min(0)
