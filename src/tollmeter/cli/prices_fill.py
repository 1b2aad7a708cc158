"""`tollmeter prices fill`: calls of models that had no price are priced by a book that knows them by now."""

import click

from tollmeter.cli.ledger import reading
from tollmeter.cli.options import SPAN, Number
from tollmeter.cli.output import UserError, err, json_option, out, print_json
from tollmeter.cli.progress import bar
from tollmeter.settings import Settings

RATE = 20_000.0


@click.command()
@click.option("--book", default="", metavar="ID", help="Only with this price book; refuse another.")
@click.option("--rate", type=Number(1, 1e6), default=RATE, show_default=True, help="Rows a second at most.")
@click.option("--wait", type=SPAN, default="30s", show_default=True, help="How long to wait for the ledger.")
@json_option
@click.pass_obj
def fill(settings: Settings, book: str, rate: float, wait: float, as_json: bool) -> None:
    """Price calls of models that had no price, where the price book knows them by now; the line does so by itself.

    The line does it when PRICE begins with another book, and once an hour. What has a cost keeps it ('tollmeter
    reprice' changes that). A second run changes nothing.
    """
    from tollmeter.admin.corrections import CorrectionError, await_stored, is_known
    from tollmeter.admin.late_prices import REASON, Priced
    from tollmeter.admin.late_prices import fill as price_late
    from tollmeter.admin.reprice import Pace
    from tollmeter.admin.sending import sending
    from tollmeter.cli.prices import expect_book, open_book

    found = open_book(settings)
    expect_book(found, book)
    done = Priced()
    try:
        with reading(settings) as client, bar("calls that had no price", None) as progress:
            published = is_known(client, found.id)
            if published:
                with sending(settings, REASON) as send:
                    done = price_late(client, found, send, Pace(rate), progress.advance)
            if done.last.revisions and not await_stored(client, done.last, wait).stored:
                err.print("sent, and not in the ledger yet: is the ledger worker running?")
    except CorrectionError as problem:
        raise UserError(f"{problem}: what was sent already counts once, run the command again") from None
    if as_json:
        models = list(done.models)
        print_json({"filled": done.calls, "models": models, "price_book": found.id, "published": published})
    elif not published:
        err.print(f"nothing is priced: no PRICE worker has published {found.id}; start PRICE with the same file")
    elif done.calls:
        out.print(f"{done.calls:,} calls that had no price have one now: {', '.join(done.models)}")
    else:
        out.print("no call waits for a price that the book knows")
