"""The command `tollmeter`: loads one command's module, shows errors as one line, and turns them into exit codes."""

import io
import sys

from tollmeter.installing import how_to_get


def main() -> int:
    """Run the command line; exit 0 ok, 1 a finding, 2 a usage or environment error with one clear line."""
    try:
        from tollmeter.cli.root import run
    except ModuleNotFoundError as missing:
        sys.stderr.write(
            f"tollmeter: the command line needs {missing.name}, which the base install leaves out; "
            f"install it with: {how_to_get('embedded')}\n"
        )
        return 2
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal without Unicode is no reason to fail
    return run(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
