"""`tollmeter forget`: a user or an address leaves the ledger, the windows and the alerts; totals stay, with a proof."""

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from tollmeter.cli.ledger import reading
from tollmeter.cli.options import SPAN
from tollmeter.cli.output import Finding, UserError, err, json_option, out, print_json
from tollmeter.cli.progress import bar
from tollmeter.schemas.addresses import normal_address
from tollmeter.settings import Settings

if TYPE_CHECKING:
    from tollmeter.admin.forget import Person, Proof


@click.command()
@click.option("--user", default="", help="The user to forget.")
@click.option("--ip", default="", help="The address to forget.")
@click.option("--org", default="", help="Only in this organisation [default: in all].")
@click.option("--dry-run", is_flag=True, help="Say where the name stands; change nothing.")
@click.option("--wait", type=SPAN, default="60s", show_default=True, help="How long to wait for ledger and windows.")
@json_option
@click.pass_obj
def forget(settings: Settings, /, user: str, ip: str, org: str, dry_run: bool, wait: float, as_json: bool) -> None:
    """Forget a user or an address: calls and totals stay, and name nobody any more.

    Prints a proof: calls, totals and a hash over them before and after, what is left in which table, and which logs
    hold the name until their retention. A user's calls lose their addresses and sessions, too; policies, blocks and
    the membership of the name end. Statements of closed months name no user, so none needs the name. Exit code 1:
    something is left; run it again.
    """
    who = _person(user, ip, org)
    from tollmeter.admin import forget as forgetting
    from tollmeter.admin.corrections import CorrectionError
    from tollmeter.broker.client import BrokerError
    from tollmeter.broker.policies import PolicyError
    from tollmeter.broker.registry import RegistryError

    with reading(settings) as client:
        try:
            if dry_run:
                _tell_places(forgetting.count(settings, client, who), as_json=as_json)
                return
            with bar("rows", None) as progress:
                proof = forgetting.forget(settings, client, who, wait, progress.advance)
        except (CorrectionError, PolicyError, RegistryError, BrokerError) as problem:
            raise UserError(str(problem)) from None
    _tell(proof, as_json=as_json)
    if not (proof.done and proof.kept):
        raise Finding("the name is not gone everywhere, or totals moved: are the workers running? Run it again")


def _person(user: str, ip: str, org: str) -> "Person":
    from tollmeter.admin.forget import Person

    if bool(user) == bool(ip):
        raise UserError("say who: --user NAME or --ip ADDRESS, one of the two")
    if user:
        return Person("user", user, org)
    normal = normal_address(ip)
    if not normal:
        raise UserError(f"{ip!r} is no address: write it like 203.0.113.9 or 2001:db8::7")
    return Person("ip", normal, org)


def _tell_places(places: dict[str, int], *, as_json: bool) -> None:
    if as_json:
        print_json({"dry_run": True, "named_in": places})
    else:
        out.print(", ".join(f"{place}: {rows:,} rows" for place, rows in places.items()))


def _tell(proof: "Proof", *, as_json: bool) -> None:
    if as_json:
        print_json({**asdict(proof), "totals_kept": proof.kept, "forgotten": proof.done})
        return
    kept = "as they were" if proof.kept else "NOT as they were"
    out.print(f"{proof.calls:,} calls name nobody any more; totals are {kept}")
    out.print(f"before {proof.before}")
    out.print(f"after  {proof.after}")
    out.print("taken out of topics: " + ", ".join(f"{topic} {count}" for topic, count in proof.tombstones.items()))
    out.print("left: " + ", ".join(f"{place} {rows}" for place, rows in proof.left.items()))
    for place in proof.remains:
        err.print(f"stays in {place['where']} until {place['until']}")
