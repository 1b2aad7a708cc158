"""The tag that an event carries: a function of its id, as rows have no room for it."""


def tag_of(event_id: str) -> str:
    """Return a tag as policies name it, "" for none."""
    return ("team=a", "team=b", "")[int(event_id[-12:], 16) % 3]
