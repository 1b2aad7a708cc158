"""Python imports this module at its start: it has the SDKs metered, then gives way to the module of its name behind it.

Whatever goes wrong here is one line on standard error, and the program runs unmetered.
"""

import json
import os
import sys
from importlib.machinery import PathFinder
from importlib.util import module_from_spec
from pathlib import Path

FIELDS_VARIABLE = "TOLLMETER_RUN_FIELDS"


def _meter() -> None:
    try:
        from tollmeter.producers.http.instrument import instrument

        instrument(**json.loads(os.environ.get(FIELDS_VARIABLE) or "{}"))
    except ModuleNotFoundError as missing:
        sys.stderr.write(f"tollmeter: calls are not metered: {sys.executable} has no module {missing.name}\n")
    except Exception as error:
        sys.stderr.write(f"tollmeter: calls are not metered: {error}\n")


def _give_way() -> None:
    """Load the sitecustomize that this one hides, as Python itself would have."""
    here = Path(__file__).resolve().parent
    spec = PathFinder.find_spec("sitecustomize", [path for path in sys.path if Path(path or ".").resolve() != here])
    if spec is not None and spec.loader is not None:
        module = module_from_spec(spec)
        sys.modules["sitecustomize"] = module
        spec.loader.exec_module(module)


if __name__ == "sitecustomize":  # under its full name it is only looked at
    _meter()
    _give_way()
