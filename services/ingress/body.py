"""Reading a request's body, bounded in size and time."""

import asyncio
from collections.abc import AsyncIterator
from typing import Final

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from libs.common.runtime.http import ApiError

_CLOSE: Final = {"Connection": "close"}


class BodyError(ApiError):
    """A body that cannot be had: too large, too slow, or broken off. `read` is what came of it before."""

    def __init__(self, status: int, detail: str, *, read: bytes = b"", size: int = 0) -> None:
        super().__init__(status, detail, headers=_CLOSE)
        self.read = read
        self.size = size


async def read_body(request: web.Request, *, most: int, seconds: float) -> bytes:
    """The whole body.

    Args:
        request: whose body nobody has read yet.
        most: bytes at most.
        seconds: from now until its last byte.

    Raises:
        BodyError: 413, before anything is read where the length is declared; 408; or 400.
    """
    chunks: list[bytes] = []
    size = 0
    try:
        async for chunk in body_chunks(request, most=most, seconds=seconds):
            chunks.append(chunk)
            size += len(chunk)
    except BodyError as error:
        error.read = b"".join(chunks)
        error.size = max(error.size, size)
        raise
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


async def body_chunks(request: web.Request, *, most: int, seconds: float) -> AsyncIterator[bytes]:
    """The body in pieces as they come; bounds and errors as in `read_body`."""
    declared = request.content_length
    if declared is not None and declared > most:
        raise BodyError(413, f"the body is larger than {most} bytes", size=declared)
    if request.content.is_eof() and request.content.exception() is None:
        # It came in with its head, as short ones do: nothing is to be waited for.
        whole = request.content.read_nowait(-1)
        if len(whole) > most:
            raise BodyError(413, f"the body is larger than {most} bytes", size=len(whole))
        if whole:
            yield whole
        return
    deadline = asyncio.get_running_loop().time() + seconds
    size = 0
    while not request.content.at_eof():
        try:
            async with asyncio.timeout_at(deadline):
                chunk = await request.content.readany()
        except TimeoutError:
            raise BodyError(408, f"the body did not come in within {seconds:g} s") from None
        except (web.RequestPayloadError, HttpProcessingError):
            raise BodyError(400, "the body is malformed or was broken off") from None
        size += len(chunk)
        if size > most:
            raise BodyError(413, f"the body is larger than {most} bytes", size=size)
        if chunk:
            yield chunk


async def continue_unless_too_large(request: web.Request, most: int) -> None:
    """Answer `Expect: 100-continue`, but do not ask for a body whose declared length is refused anyway."""
    declared = request.content_length
    if request.version >= (1, 1) and (declared is None or declared <= most):
        assert request.transport is not None
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
