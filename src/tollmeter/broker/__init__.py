"""The broker and what is fixed about it: clients, layout, topic ids, policies."""
