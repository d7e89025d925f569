"""Names of receivers: looked up in threads, judged with all their addresses, and kept for a while."""

import asyncio
import socket
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from ipaddress import ip_address
from typing import Any, Final, TypeAlias

from libs.common.domain.addresses import AddressPolicy, vet_all
from libs.common.runtime import clock

DNS_CACHE_SECONDS: Final = 10
LOOKUPS_AT_ONCE: Final = 64
NAMES_KEPT: Final = 10_000

AddressInfo: TypeAlias = tuple[Any, ...]
"""Family, kind, protocol, canonical name and address, as `socket.getaddrinfo` has them."""


class AddressRefusedError(OSError):
    """An address that endpoints may not have."""


class Resolver:
    """The system's resolver, in threads of its own: uvloop's has four of them, which four dead names would block."""

    def __init__(self, policy: AddressPolicy) -> None:
        self._policy = policy
        self._threads = ThreadPoolExecutor(LOOKUPS_AT_ONCE, thread_name_prefix="resolver")

    async def look_up(
        self, host: str, port: int, family: socket.AddressFamily = socket.AF_UNSPEC, *, vetted: bool = True
    ) -> list[AddressInfo]:
        """What the system says of a name.

        Raises:
            OSError: it does not resolve.
            AddressRefusedError: of its addresses one is not allowed.
        """
        found = await self._ask(host, port, family)
        if vetted:
            self.vet(found)
        return found

    def vet(self, found: list[AddressInfo]) -> None:
        """Judge all addresses of a name.

        Raises:
            AddressRefusedError: one of them is not allowed.
        """
        refused = vet_all([ip_address(address[0]) for *_, address in found], self._policy)
        if refused is not None:
            raise AddressRefusedError(refused.detail)

    def close(self) -> None:
        """Begin no more lookups."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _ask(self, host: str, port: int, family: socket.AddressFamily) -> list[AddressInfo]:
        return list(await asyncio.get_running_loop().run_in_executor(self._threads, _asking(host, port, family)))


class KeepingResolver(Resolver):
    """A resolver that keeps answers for `DNS_CACHE_SECONDS`, judges them each time, and asks once for all who wait."""

    def __init__(self, policy: AddressPolicy) -> None:
        super().__init__(policy)
        self._kept: dict[tuple[str, int], tuple[float, list[AddressInfo]]] = {}
        self._asked: dict[tuple[str, int], asyncio.Future[list[AddressInfo]]] = {}

    def kept(self, host: str, port: int) -> list[AddressInfo] | None:
        """A fresh answer, judged anew, that begins with another address each time; None if there is none.

        Raises:
            AddressRefusedError: see `look_up`.
        """
        until, found = self._kept.get((host, port), (0.0, []))
        if clock.monotonic() >= until:
            return None
        self.vet(found)
        found.append(found.pop(0))
        return list(found)

    async def _ask(self, host: str, port: int, family: socket.AddressFamily) -> list[AddressInfo]:
        key = (host, port)
        asked = self._asked.get(key)
        if asked is None:
            asked = asyncio.get_running_loop().run_in_executor(self._threads, _asking(host, port, family))
            self._asked[key] = asked
            asked.add_done_callback(partial(self._keep, key))
        # Whoever gives up waiting does not take the answer from the others.
        return list(await asyncio.shield(asked))

    def _keep(self, key: tuple[str, int], asked: "asyncio.Future[list[AddressInfo]]") -> None:
        del self._asked[key]
        if asked.cancelled() or asked.exception() is not None:
            return
        self._kept.pop(key, None)
        while len(self._kept) >= NAMES_KEPT:
            del self._kept[next(iter(self._kept))]
        self._kept[key] = clock.monotonic() + DNS_CACHE_SECONDS, list(asked.result())


def _asking(host: str, port: int, family: socket.AddressFamily) -> "partial[list[AddressInfo]]":
    return partial(socket.getaddrinfo, host, port, family=family, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG)
