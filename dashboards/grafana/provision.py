"""What Grafana reads at its start: where questions go, and where boards lie. Passwords come from its environment."""

from tollmeter.dashboards.grafana.render import SOURCE_TYPE, SOURCE_UID

BOARDS_AT = "/etc/tollmeter/boards"
"""Where the container finds the JSON of the boards."""

SOURCES: dict[str, object] = {
    "apiVersion": 1,
    "datasources": [
        {
            "name": "tollmeter",
            "uid": SOURCE_UID,
            "type": SOURCE_TYPE,
            "access": "proxy",
            "editable": False,
            "isDefault": True,
            "jsonData": {
                "host": "$TOLLMETER_GRAFANA_CLICKHOUSE_HOST",
                "port": 8123,
                "protocol": "http",
                "username": "grafana",
                "defaultDatabase": "tollmeter",
                "validateSql": True,
            },
            "secureJsonData": {"password": "$CLICKHOUSE_GRAFANA_PASSWORD"},
        }
    ],
}
"""One data source: the user `grafana`, who may read the views of the boards and nothing else."""

PROVIDERS: dict[str, object] = {
    "apiVersion": 1,
    "providers": [
        {
            "name": "tollmeter",
            "folder": "tollmeter",
            "type": "file",
            "disableDeletion": True,
            "allowUiUpdates": False,
            "options": {"path": BOARDS_AT},
        }
    ],
}
"""Boards are files: what is changed in a browser is saved as a copy."""
