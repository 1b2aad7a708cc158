"""Alerts reach people: an alert becomes a notice, and a notice is delivered to each consumer that a route names."""
