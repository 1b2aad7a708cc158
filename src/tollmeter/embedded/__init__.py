"""The stack without Docker: a Kafka broker, chDB behind the ClickHouse HTTP interface, workers, one supervisor."""
