"""The command line: tables for people, one JSON document for machines, exit codes 0, 1 (a finding) and 2 (an error)."""
