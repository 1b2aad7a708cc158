"""What the commands about keys, tokens and labels share: the organisation, and errors in one line."""

from collections.abc import Iterator
from contextlib import contextmanager

import click

from tollmeter.admin.secret import SecretError
from tollmeter.broker.registry import RegistryError
from tollmeter.cli.output import UserError
from tollmeter.schemas.access import EVERYONE

org_option = click.option("--org", required=True, help="Organisation it belongs to.")
of_org_option = click.option("--org", default=EVERYONE, help="Only of this organisation [default: any].")


@contextmanager
def doing() -> Iterator[None]:
    """Turn what the user can mend into one line each."""
    try:
        yield
    except (RegistryError, SecretError) as error:
        raise UserError(str(error)) from None
