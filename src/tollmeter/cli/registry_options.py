"""What the commands about keys, tokens and labels share: the organisation, on and off, and errors in one line."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import click

from tollmeter.admin.secret import SecretError
from tollmeter.broker.registry import RegistryError
from tollmeter.cli.output import UserError, out
from tollmeter.schemas.access import EVERYONE
from tollmeter.schemas.registry import ServerKey, TrackingToken
from tollmeter.settings import Settings

org_option = click.option("--org", required=True, help="Organisation it belongs to.")
id_argument = click.argument("id_", metavar="ID")
of_org_option = click.option("--org", default=EVERYONE, help="Only of this organisation [default: any].")


@contextmanager
def doing() -> Iterator[None]:
    """Turn what the user can mend into one line each."""
    try:
        yield
    except (RegistryError, SecretError) as error:
        raise UserError(str(error)) from None


@dataclass(frozen=True)
class Switched:
    """What can be switched off, on again, and deleted: its word, how that is done, and what each means for people."""

    word: str
    switch: Callable[[Settings, str, bool, str], ServerKey | TrackingToken]
    delete: Callable[[Settings, str, str], None]
    off: str
    gone: str


def add_switches(group: click.Group, kind: Switched) -> None:
    """Give a group of commands `disable`, `enable` and `delete`."""

    def command(name: str, says: str, run: Callable[[Settings, str, str], str]) -> None:
        @group.command(name, help=says)
        @id_argument
        @of_org_option
        @click.pass_obj
        def _(settings: Settings, id_: str, org: str) -> None:
            with doing():
                done = run(settings, id_, org)
            out.print(done)

    def switched(settings: Settings, id_: str, org: str, *, active: bool) -> str:
        entry = kind.switch(settings, id_, active, org)
        return f"{kind.word} {id_} ({entry.name}, {entry.org_id}) is {'on' if active else 'off'}"

    def deleted(settings: Settings, id_: str, org: str) -> str:
        kind.delete(settings, id_, org)
        return f"{kind.word} {id_} is gone"

    command("disable", f"Switch a {kind.word} off: {kind.off}.", partial(switched, active=False))
    command("enable", f"Switch a {kind.word} on again.", partial(switched, active=True))
    command("delete", f"Take a {kind.word} away{kind.gone}.", deleted)
