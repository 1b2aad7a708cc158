"""WATCH: one partition of the log folded into windows, edges and spend."""
