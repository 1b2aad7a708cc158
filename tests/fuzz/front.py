"""`python -m tests.fuzz.front`: twenty thousand hostile requests of a reader to a real front, canary files beside it.

Afterwards no canary file was read, written or made, its content is in no answer, and neither are the passwords.
"""

import argparse
import http.client
import json
import random
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from tests.fuzz.reader import SECRET, Canaries, LeakError
from tests.fuzz.reader_statements import PATH, Hostile
from tollmeter.embedded.ports import choose
from tollmeter.embedded.supervisor import Program, Supervisor

WRITER, READER = "writer-7e1c" + "9b", "reader-2f80" + "4d"
"""Passwords; each would be found in an answer."""


@contextmanager
def front(folder: Path) -> Iterator[int]:
    """Run a front on a folder of its own, the passwords beside it, and yield its port."""
    users = folder / "users.json"
    passwords = {"default": WRITER, "reader": READER, "other": SECRET}
    document = {name: {"password": word, "readonly": name != "default"} for name, word in passwords.items()}
    users.write_text(json.dumps(document))
    (port,) = choose([0])
    command = [sys.executable, "-m", "tollmeter.embedded.front", "--data", str(folder / "clickhouse")]
    command += ["--port", str(port), "--users", str(users)]
    supervisor = Supervisor(lambda line: None)
    try:
        supervisor.start(Program("front", command, dict, folder / "logs" / "front.log"))
        while supervisor.snapshot()["front"].alive and not _answers(port):
            time.sleep(0.1)
        yield port
    finally:
        supervisor.kill("front", signal.SIGTERM, restart=False)
        supervisor.close([["front"]])


def _answers(port: int) -> bool:
    try:
        return once(port, "SELECT 1", WRITER)[0] == 200
    except OSError:
        return False


def ask(
    connection: http.client.HTTPConnection, query: str | bytes, password: str, address: str = "/?"
) -> tuple[int, bytes]:
    """Send one statement and return status and answer."""
    user = "reader" if password == READER else "default"
    body = query.encode("utf-8", "surrogatepass") if isinstance(query, str) else query
    connection.request("POST", address, body, {"X-ClickHouse-User": user, "X-ClickHouse-Key": password})
    answer = connection.getresponse()
    return answer.status, answer.read()


def once(port: int, query: str, password: str) -> tuple[int, bytes]:
    """Send one statement over a connection of its own and return status and answer."""
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as connection:
        return ask(connection, query, password)


def hostile_requests(port: int, canaries: Canaries, inputs: int, seed: int) -> dict[str, Any]:
    """Send so many requests as the reader. Raises `LeakError`; returns counts."""
    hostile, draw = Hostile(seed, confined=True), random.Random(seed)
    statuses: Counter[int] = Counter()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    for number in range(inputs):
        text = hostile.statement().replace(PATH, draw.choice(canaries.paths))
        settings = {
            name: value.replace(PATH, draw.choice(canaries.paths)) for name, value in hostile.settings().items()
        }
        in_address = draw.random() < 0.2 and len(text) < 4_000
        address = "/?" + urlencode({**settings, **({"query": text} if in_address else {})}, quote_via=quote)
        try:
            status, answer = ask(connection, b"" if in_address else text, READER, address)
        except http.client.HTTPException:
            connection.close()
            statuses[0] += 1
            continue
        statuses[status] += 1
        if any(secret.encode() in answer for secret in (SECRET, WRITER, READER)) or b"root:" in answer:
            raise LeakError(f"a secret in the answer to {text!r} with {settings}")
        if status >= 500 and status not in (501, 503) and b"Code: 241" not in answer:
            raise LeakError(f"status {status} for {text!r} with {settings}: {answer[:300]!r}")
        if number % 20 == 0:
            canaries.check(text)
    connection.close()
    canaries.check("the last ones")
    return {"inputs": inputs, "statuses": dict(sorted(statuses.items()))}


class Writing:
    """A writer that inserts all the while, as LEDGER does: what a reader sends must not keep it waiting."""

    def __init__(self, port: int) -> None:
        self._port, self._end = port, threading.Event()
        self.inserts, self.waits_s = 0, [0.0]
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> "Writing":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    def _run(self) -> None:
        with closing(http.client.HTTPConnection("127.0.0.1", self._port, timeout=120)) as connection:
            while not self._end.wait(0.05):
                began = time.monotonic()
                assert ask(connection, "INSERT INTO w VALUES (1)", WRITER)[0] == 200
                self.waits_s.append(time.monotonic() - began)
                self.inserts += 1

    def counts(self) -> dict[str, Any]:
        """Return how many inserts there were, how many took longer than a second, and the longest."""
        stalls = sum(wait > 1.0 for wait in self.waits_s)
        return {"inserts": self.inserts, "stalls": stalls, "longest_s": round(max(self.waits_s), 3)}


def prepare(port: int) -> None:
    """Make the tables that the statements name."""
    assert once(port, "CREATE TABLE w (a UInt64) ENGINE = MergeTree ORDER BY a", WRITER)[0] == 200
    for table in ("t", "u"):
        columns = "a UInt64, b String, c String"
        assert once(port, f"CREATE TABLE {table} ({columns}) ENGINE = MergeTree ORDER BY a", WRITER)[0] == 200
        assert once(port, f"INSERT INTO {table} VALUES (1, 'x', 'y'), (2, 'z', '')", WRITER)[0] == 200


def run(inputs: int, seed: int) -> dict[str, Any]:
    """Start a front, send so many requests, and return counts. Raises `LeakError`."""
    with tempfile.TemporaryDirectory() as name, front(Path(name)) as port:
        prepare(port)
        with Writing(port) as writing:
            counts = hostile_requests(port, Canaries(Path(name)), inputs, seed) | writing.counts()
        if said := (Path(name) / "logs" / "front.log").read_text(errors="replace"):
            raise LeakError(f"the front wrote: {said[:500]}")
        return {**counts, "seed": seed}


def main() -> None:
    """Print the counts of a run as JSON."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.front", description=__doc__)
    parser.add_argument("--inputs", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    print(json.dumps(run(arguments.inputs, arguments.seed)))


if __name__ == "__main__":
    main()
