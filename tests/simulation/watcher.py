"""I6 while a run goes on: nothing is acked before what it causes is durable, nor what a worker cannot read."""

from collections import defaultdict

from faust.types import TP

from tests.simulation.line import Line
from tollmeter.schemas import envelope, topics
from tollmeter.schemas.priced import H_FORMAT, H_KIND, H_SOURCE_ID
from tollmeter.streams.engine.gaps import log_and_note


class Watcher:
    """I6, at every commit: nothing is acked before what it causes is durable."""

    def __init__(self, line: Line) -> None:
        self.problems: list[str] = []
        self._line = line
        self._checked: dict[tuple[str, TP, str], int] = defaultdict(int)
        self._out: set[tuple[str, int, int]] = set()
        """(topic id, partition, offset) of the source records of which a row is in the log; "" for dead letters."""
        line.broker.on_commit = self._on_commit
        line.broker.on_append.append(self._on_append)

    def _on_append(self, tp: TP) -> None:
        record = self._line.broker.logs[tp].records[-1]
        if tp.topic == topics.PRICED and dict(record.headers)[H_KIND] == b"rows":
            source_id = dict(record.headers)[H_SOURCE_ID].decode()
            self._out |= {(source_id, row.src_partition, row.src_offset) for row in record.value}
        elif tp.topic == topics.DLQ:
            headers = dict(record.headers)
            self._out.add(("", int(headers["source_partition"]), int(headers["source_offset"])))

    def _on_commit(self, group: str, tp: TP, offset: int, note: str) -> None:
        log, store = self._line.broker.logs[tp], self._line.store
        log_id = log_and_note(note)[0]
        if log_id != log.log_id:
            return  # it speaks of a log that is gone, and says so
        begin = max(self._checked[group, tp, log_id], log.first)
        self._checked[group, tp, log_id] = max(begin, offset)
        for record in log.read(begin, max(0, offset - begin)):
            if group == "price":
                place = tp.partition, record.offset
                if (log_id, *place) not in self._out and ("", *place) not in self._out:
                    self._note(f"I6: price committed {tp.partition}/{record.offset} before its row or dead letter")
                continue
            if group != "ledger" or tp.topic != topics.PRICED:
                continue
            headers = dict(record.headers)
            if int(headers[H_FORMAT]) > envelope.NEWEST_KNOWN:
                self._note(f"I6: ledger committed {tp.partition}/{record.offset}, which it cannot read")
            elif headers[H_KIND] == b"rows":
                missing = [row for row in record.value if not row.poison and row.identity not in store.events]
                if missing:
                    self._note(f"I6: ledger committed {tp.partition}/{record.offset} before its insert")

    def _note(self, text: str) -> None:
        if len(self.problems) < 3:
            self.problems.append(text)
