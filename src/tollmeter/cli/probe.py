"""`tollmeter probe PROVIDER`: one tiny call says whether a provider is there, which model answers and what it took."""

import os
from pathlib import Path

import click

from tollmeter.cli.options import Number
from tollmeter.cli.output import Finding, UserError, json_option, out, print_json, print_table
from tollmeter.producers.fallback.native import Target
from tollmeter.producers.fallback.probe import KNOWN, Known, ask, key_in
from tollmeter.settings import Settings


@click.command()
@click.argument("provider", type=click.Choice(sorted(KNOWN)))
@click.option("--model", default="", help="Model to ask; default: a small one of the provider.")
@click.option("--url", default="", help="Base address, where it is not the provider's own.")
@click.option("--key-file", type=click.Path(path_type=Path), default=None, help="File that holds the provider key.")
@click.option("--timeout", type=Number(0.1, 600), default=20.0, show_default=True, help="Seconds to wait.")
@click.option("--org", "org_id", default="demo", show_default=True, help="Paying organisation of the call.")
@json_option
@click.pass_obj
def probe(
    settings: Settings,
    provider: str,
    model: str,
    url: str,
    key_file: Path | None,
    timeout: float,
    org_id: str,
    as_json: bool,
) -> None:
    """Ask a provider for one word: is it reachable?

    The key comes from the provider's environment variable (OPENAI_API_KEY, ...) or a file, and is never shown. The
    call is metered like any other, as operation `probe`. Exit code 1: not reachable, or it refused.
    """
    known = KNOWN[provider]
    key = _key(known, key_file)
    try:
        target = Target(known.speaks, url or known.url, key, known.provider)
    except ValueError as error:
        raise UserError(f"--url: {error}") from None
    row = ask(settings, target, model or known.model, timeout, org_id)
    if as_json:
        print_json({"provider": provider, **row})
    elif row["reachable"]:
        print_table(f"{provider} is reachable", [row], ("model", "input_tokens", "output_tokens", "latency_ms"))
        out.print(f"metered: event {row['event_id']} {row['event']}")
    if not row["reachable"]:
        raise Finding(f"{provider} did not answer: {row['error']}")


def _key(known: Known, key_file: Path | None) -> str:
    if key_file is not None:
        try:
            key = key_file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"--key-file {key_file}: {getattr(error, 'strerror', None) or 'no text'}") from None
        if not key or len(key.split()) != 1:
            raise UserError(f"--key-file {key_file}: one key on one line is expected")
        return key
    key = key_in(known, os.environ)
    if known.variables and not key:
        raise UserError(f"no key: set {' or '.join(known.variables)}, or give --key-file")
    return key
