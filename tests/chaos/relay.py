"""`python -m tests.chaos.relay PORT HOST:PORT ...`: inside a network namespace, ports of its loopback lead outside."""

import asyncio
import sys

from tests.chaos.proxy import Proxy


async def main(pairs: list[str]) -> None:
    for port, behind in zip(pairs[::2], pairs[1::2], strict=True):
        host, _, behind_port = behind.partition(":")
        await Proxy(host, int(behind_port)).start(int(port))
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
