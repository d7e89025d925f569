"""What sends one signed POST: bounded in time and size, never redirected, said at most twice."""

from abc import ABC, abstractmethod
from datetime import timedelta
from importlib.metadata import version
from typing import Final, Literal, Self, TypeAlias
from uuid import UUID

from msgspec import Struct

from libs.common.domain.facts import Timings
from libs.common.domain.outcome import Answer

CONNECT_SECONDS: Final = 5.0
KEEPALIVE_SECONDS: Final = 30.0
MOST_READ_BYTES: Final = 64 * 1024
KEPT_BYTES: Final = 16 * 1024
TARGETS_KEPT: Final = 100_000
"""What is made of a URL is kept for so many: some 200 bytes each, where its endpoint takes 2 KiB."""
USER_AGENT: Final = f"Hookledger/{version('hookledger')}"


SenderName: TypeAlias = Literal["lean", "aiohttp"]
"""What the setting calls the senders there are."""


class Report(Struct, frozen=True, kw_only=True, gc=False):
    """What became of a send: the answer, and what the ledger records beside it."""

    answer: Answer
    peer: str | None
    sends: int
    timings: Timings
    response: bytes = b""


class Sender(ABC):
    """The one HTTP client of a dispatcher, so that connections are used again. Used as an async context manager."""

    @abstractmethod
    async def __aenter__(self) -> Self: ...

    @abstractmethod
    async def __aexit__(self, *_: object) -> None: ...

    @abstractmethod
    async def send(self, url: str, headers: dict[str, str], body: bytes, *, app: UUID, timeout: timedelta) -> Report:  # noqa: ASYNC109  it is the endpoint's setting
        """POST `body` and read a bounded answer; every way in which that can end is a report.

        Args:
            url: normalised and judged as text; resolved addresses are judged here.
            headers: signature and content type among them.
            body: exact bytes.
            app: on whose behalf, for what applications have shares of.
            timeout: for all of it.
        """
