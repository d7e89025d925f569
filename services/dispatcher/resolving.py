"""Names of receivers: looked up in threads, judged with all their addresses, and kept for a while."""

import asyncio
import socket
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from ipaddress import ip_address
from typing import Any, Final, TypeAlias
from uuid import UUID

from msgspec import Struct

from libs.common.domain.addresses import AddressPolicy, vet_all
from libs.common.runtime import clock
from services.dispatcher.lookups import LookupPlaces

DNS_CACHE_SECONDS: Final = 10.0
"""How long an answer is kept, and a failure at most."""
FAILURE_KEPT_SECONDS: Final = 0.5
"""How long a failure is kept at least: less than any retry waits."""
LOOKUPS_AT_ONCE: Final = 64
NAMES_KEPT: Final = 10_000

AddressInfo: TypeAlias = tuple[Any, ...]
"""Family, kind, protocol, canonical name and address, as `socket.getaddrinfo` has them."""
_Key: TypeAlias = tuple[str, int]


class AddressRefusedError(OSError):
    """An address that endpoints may not have."""


class NameUnresolvedError(OSError):
    """The system has no address for a name, and took so many seconds to say so."""

    def __init__(self, reason: str, seconds: float) -> None:
        super().__init__(reason)
        self.seconds = seconds


class _Answer(Struct, frozen=True, kw_only=True):
    """What the system says of a name, after so many seconds: addresses, or why there are none."""

    seconds: float
    addresses: Sequence[AddressInfo] = ()
    failure: str = ""

    @property
    def kept_seconds(self) -> float:
        """A name that is slow to fail is asked for at most half of the time, one that fails at once again soon."""
        if not self.failure:
            return DNS_CACHE_SECONDS
        return min(DNS_CACHE_SECONDS, max(FAILURE_KEPT_SECONDS, self.seconds))


class Resolver:
    """The system's resolver, in threads of its own: uvloop's has four of them, which four dead names would block.

    It asks once for all who wait, keeps what it hears, failures too, and judges it each time. A lookup cannot be
    called off, so that an application may have only some of the threads, and waits for them while others go on.

    Args:
        policy: which addresses endpoints may have.
    """

    def __init__(self, policy: AddressPolicy) -> None:
        self._policy = policy
        self._threads = ThreadPoolExecutor(LOOKUPS_AT_ONCE, thread_name_prefix="resolver")
        self._places = LookupPlaces(LOOKUPS_AT_ONCE)
        self._kept: dict[_Key, tuple[float, _Answer]] = {}
        self._asked: dict[_Key, asyncio.Future[_Answer]] = {}

    def kept(self, host: str, port: int, *, vetted: bool = True) -> list[AddressInfo] | None:
        """A fresh answer, judged anew, that begins with another address each time; None if there is none.

        Raises:
            OSError: see `look_up`.
        """
        answer = self._fresh((host, port))
        if answer is None:
            return None
        found = self._judged(answer, vetted=vetted)
        if len(found) > 1:
            until, _ = self._kept[host, port]
            self._kept[host, port] = until, _Answer(seconds=answer.seconds, addresses=[*found[1:], found[0]])
        return found

    async def look_up(self, host: str, port: int, app: UUID, *, vetted: bool = True) -> list[AddressInfo]:
        """What the system says of a name, on behalf of an application.

        Raises:
            NameUnresolvedError: it does not resolve.
            AddressRefusedError: of its addresses one is not allowed.
            UnicodeError: it cannot be a name.
        """
        return self._judged(await self._ask((host, port), app), vetted=vetted)

    def close(self) -> None:
        """Begin no more lookups."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _judged(self, answer: _Answer, *, vetted: bool) -> list[AddressInfo]:
        if answer.failure:
            raise NameUnresolvedError(answer.failure, answer.seconds)
        if vetted:
            refused = vet_all([ip_address(address[0]) for *_, address in answer.addresses], self._policy)
            if refused is not None:
                raise AddressRefusedError(refused.detail)
        return list(answer.addresses)

    def _fresh(self, key: _Key) -> _Answer | None:
        kept = self._kept.get(key)
        return None if kept is None or clock.monotonic() >= kept[0] else kept[1]

    async def _ask(self, key: _Key, app: UUID) -> _Answer:
        asked = self._asked.get(key)
        if asked is None:
            await self._places.take(app)
            # Another may have asked meanwhile.
            asked, answer = self._asked.get(key), self._fresh(key)
            if asked is not None or answer is not None:
                self._places.give_back(app)
            if answer is not None:
                return answer
            if asked is None:
                asked = self._begin(key, app)
        # Whoever gives up waiting does not take the answer from the others.
        return await asyncio.shield(asked)

    def _begin(self, key: _Key, app: UUID) -> "asyncio.Future[_Answer]":
        asked = asyncio.get_running_loop().run_in_executor(self._threads, _ask_system, *key)
        self._asked[key] = asked
        asked.add_done_callback(partial(self._keep, key, app))
        return asked

    def _keep(self, key: _Key, app: UUID, asked: "asyncio.Future[_Answer]") -> None:
        del self._asked[key]
        self._places.give_back(app)
        if asked.cancelled() or asked.exception() is not None:
            return
        self._kept.pop(key, None)
        while len(self._kept) >= NAMES_KEPT:
            del self._kept[next(iter(self._kept))]
        answer = asked.result()
        self._kept[key] = clock.monotonic() + answer.kept_seconds, answer


def _ask_system(host: str, port: int) -> _Answer:
    began = clock.monotonic()
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG)
    except OSError as error:
        return _Answer(seconds=clock.monotonic() - began, failure=str(error) or type(error).__name__)
    return _Answer(seconds=clock.monotonic() - began, addresses=found)
