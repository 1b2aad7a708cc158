"""Usage that others wrote down: log lines, files, exports."""
