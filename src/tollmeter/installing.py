"""How to get what the base install leaves out: the one text in the code that changes when tollmeter is published."""

from tollmeter import __version__


def how_to_get(extra: str) -> str:
    """Return the command that installs an extra such as embedded, server or s3, and where to type it."""
    wheel = f"dist/tollmeter-{__version__}-py3-none-any.whl"
    return f"pip install '{wheel}[{extra}]' (in a checkout, after `make dist`)"
