"""What an event carries besides, a function of its id, as rows have no room for it."""


def tag_of(event_id: str) -> str:
    """Return a tag as policies name it, "" for none."""
    return ("team=a", "team=b", "")[int(event_id[-12:], 16) % 3]


def session_of(event_id: str) -> str:
    """Return the session of a call, "" for none."""
    return ("s1", "s2", "s3", "s4", "s/5", "")[int(event_id[-12:], 16) // 3 % 6]


def run_of(event_id: str) -> str:
    """Return the run of a call, "" for none."""
    number = int(event_id[-12:], 16)
    return f"r{number // 4}" if number % 4 else ""


def named_by_id(event_id: str) -> dict[str, str]:
    """Return the scopes of a call that only its id tells, by kind."""
    return {"tag": tag_of(event_id), "session": session_of(event_id), "run": run_of(event_id)}
