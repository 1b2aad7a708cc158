"""`tollmeter doctor`: is this set-up well, and if not, what is to be done? It reads and changes nothing."""

import os
from collections import Counter
from dataclasses import asdict

import click

from tollmeter import stacks
from tollmeter.cli.output import Finding, UserError, json_option, out, print_json, print_table
from tollmeter.settings import Settings, SettingsError


@click.command()
@json_option
@click.pass_obj
def doctor(settings: Settings, as_json: bool) -> int:
    """Check a set-up: versions, broker, topics, rights, tables, disks, clocks, lag, rates, backups; change nothing.

    Exit code 1 when something is wrong; warnings alone are 0.
    """
    from tollmeter.doctor.run import examine

    try:
        settings.require_line()
    except SettingsError as error:
        raise UserError(str(error)) from None
    found = stacks.find(os.environ)
    folder = found.folder if found.folder is not None and found.folder.is_dir() else None
    line = settings if folder is None else settings.model_copy(update={"data_dir": folder})
    checks = examine(line, folder)
    counts = Counter[str](check.state for check in checks)
    if as_json:
        print_json({"checks": [asdict(check) for check in checks], "counts": dict(counts)})
        return 1 if counts["wrong"] else 0
    rows = [{"check": one.name, "state": one.state, "found": one.found, "do": one.do} for one in checks]
    print_table(f"{line.kafka} and {line.clickhouse}", rows)
    if counts["wrong"]:
        raise Finding(f"{counts['wrong']} wrong, {counts['warning']} warnings")
    out.print(f"nothing is wrong; {counts['warning']} warnings")
    return 0
