"""Grafana boards and alert rules as code: what is written here is generated into JSON and YAML that Grafana loads."""
