"""A data folder keeps its ports: services look for the stack where it was, and are not left to find out."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

from tollmeter.embedded import ports, state
from tollmeter.embedded.jars import EmbeddedError
from tollmeter.settings import HEALTH_PORTS, Settings

SERVER_PORT = 5001
NAMES = {"kafka": "the broker", "clickhouse": "ClickHouse"}


class Addresses:
    """The ports of one data folder. `moves` name a port that is to be left for another; 0 = for any free one."""

    def __init__(
        self, data_dir: Path, wish: Settings, moves: Mapping[str, int | None], note: Callable[[str], None]
    ) -> None:
        self._data_dir, self._wish, self._moves, self._note = data_dir, wish, moves, note
        self._had = state.read_ports(data_dir)

    def choose(self) -> list[int]:
        """Return free ports for broker, ClickHouse and the broker's controller.

        Raises `EmbeddedError` when another program has one that this folder had: services look for the stack there.
        """
        wanted = [self._one("kafka", self._had.kafka, _port(self._wish.kafka))]
        wanted += [self._one("clickhouse", self._had.clickhouse, _http_port(self._wish))]
        return ports.choose([*wanted, 0])

    def _one(self, name: str, before: int, wish: int) -> int:
        moved_to, what = self._moves.get(name), NAMES[name]
        port = moved_to if moved_to is not None else before or wish
        if not port or ports.is_free(port):
            return port
        if moved_to or (moved_to is None and before):
            raise EmbeddedError(
                f"port {port} of 127.0.0.1, at which services look for {what} of {self._data_dir}, is taken by another "
                f"program: end that, or move the stack with `tollmeter up --{name}-port 0` (any free port)"
            )
        self._note(f"port {port} is taken by another program: {what} gets another one, and keeps it")
        return port

    def keep(self, kafka: int, clickhouse: int) -> None:
        """Take note of the ports at which both were started."""
        self._had = replace(self._had, kafka=kafka, clickhouse=clickhouse)
        state.write_ports(self._data_dir, self._had)

    def health(self, name: str) -> int:
        """Return the port of a worker's health checks: the one it had, else its own if that is free, else any."""
        base = self._wish.health_port
        if name not in HEALTH_PORTS or base == 0:
            return 0
        own = HEALTH_PORTS[name] if base is None else base + list(HEALTH_PORTS).index(name)
        wanted = self._had.health.get(name) or own
        [port] = ports.choose([wanted])
        if port != wanted:
            self._note(f"port {wanted} is taken by another program: health checks of {name} are at port {port}")
        self._had = replace(self._had, health={**self._had.health, name: port})
        state.write_ports(self._data_dir, self._had)
        return port

    def server(self, environment: Mapping[str, str]) -> int:
        """Return the port of the server: the one it had, else SERVER_PORT if that is free, else any."""
        wish = environment.get("SERVER_PORT", "")
        own = int(wish) if wish.isdecimal() else SERVER_PORT
        wanted = self._had.server or own
        [port] = ports.choose([wanted])
        if wanted and port != wanted:
            self._note(f"port {wanted} is taken by another program: the server is at port {port}")
        self._had = replace(self._had, server=port)
        state.write_ports(self._data_dir, self._had)
        return port


def server_host(environment: Mapping[str, str]) -> str:
    """Return the address at which the server listens."""
    return environment.get("SERVER_HOST") or "127.0.0.1"


def reachable(host: str) -> str:
    """Return the host of a URL under which this machine reaches a listener on an address."""
    own = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 -- compared, not bound
    return f"[{own}]" if ":" in own else own


def _port(address: str) -> int:
    return int(address.rpartition(":")[2])


def _http_port(settings: Settings) -> int:
    port = urlsplit(settings.clickhouse).port
    return 8123 if port is None else port
