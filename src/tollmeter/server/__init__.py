"""`tollmeter serve`: usage comes in by HTTP, answers go out; one process, as many as wanted behind a balancer."""
