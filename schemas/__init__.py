"""What crosses a border: events, priced rows, control records, alerts, policies, topic names. Frozen, no I/O."""
