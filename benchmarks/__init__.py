"""The figures of docs/performance.md, each printed by a command: `python -m benchmarks.pipeline`."""
