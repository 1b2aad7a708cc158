"""Telemetry of others, read into usage events: OpenTelemetry spans of model calls, log records of coding agents."""
