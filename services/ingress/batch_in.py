"""A batch of the publish API: `{"messages": […]}`, each as in a request of its own, each with its own result.

What is wrong with one message is that message's result; the others are accepted. What is no list of messages at all is
refused whole.
"""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from libs.common.contracts.messages import MAX_BATCH_MESSAGES, MessageBatchOut, MessageResultOut
from libs.common.contracts.operations import ErrorItem
from libs.common.domain.message import MAX_BODY_BYTES
from libs.common.runtime.http import ApiError, invalid
from services.ingress import message_in, schemas
from services.ingress.candidate import Acceptance, Accepted, Duplicate, Forbidden, KeyKind, Violating
from services.ingress.message_in import MessageIn

MAX_BATCH_BYTES: Final = 5 * 1024 * 1024
_BYTES_AT_ONCE: Final = 64 * 1024
"""Six milliseconds, where all of them must be read twice."""


class _BatchIn(msgspec.Struct):
    messages: Annotated[list[msgspec.Raw], Meta(min_length=1, max_length=MAX_BATCH_MESSAGES)]


_DECODER: Final = msgspec.json.Decoder(_BatchIn)
_ENCODER: Final = msgspec.json.Encoder()


def read_items(data: bytes) -> list[msgspec.Raw]:
    """The messages of a batch, each as its exact bytes.

    Raises:
        ApiError: 422.
    """
    try:
        return _DECODER.decode(data).messages
    except msgspec.ValidationError as error:
        raise invalid(["body", "messages"], str(error)) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise invalid(["body"], f"not valid JSON: {error}", "value_error.jsondecode") from None


class Batch:
    """The messages of a batch by their places, and what is wrong with the others."""

    def __init__(self) -> None:
        self.messages: dict[int, MessageIn] = {}
        self._refused: dict[int, ApiError] = {}

    async def read(self, items: Sequence[msgspec.Raw], now: Callable[[], datetime]) -> None:
        """Read the messages; between large ones, or many, everything else has its turn.

        Args:
            items: each as its exact bytes.
            now: as in `message_in.parse`.
        """
        at_once = 0
        for place, item in enumerate(items):
            at_once += memoryview(item).nbytes
            if at_once > _BYTES_AT_ONCE:
                await asyncio.sleep(0)
                at_once = 0
            try:
                self.messages[place] = _read(item, now)
            except ApiError as error:
                self._refused[place] = error

    @property
    def application(self) -> bytes | None:
        """The first application that a message brings along."""
        return next((each.application for each in self.messages.values() if each.application is not None), None)

    def answer(self, acceptances: Iterable[Acceptance], *, with_content: bool) -> bytes:
        """The JSON of the results, in the order of the request.

        Args:
            acceptances: of `messages`, in their order.
            with_content: whether payloads are shown.
        """
        results = {place: _error(error) for place, error in self._refused.items()}
        for (place, message), acceptance in zip(self.messages.items(), acceptances, strict=True):
            results[place] = _result(message, acceptance, with_content=with_content)
        return _ENCODER.encode(MessageBatchOut(data=[results[place] for place in sorted(results)]))


def _read(item: msgspec.Raw, now: Callable[[], datetime]) -> MessageIn:
    if memoryview(item).nbytes > MAX_BODY_BYTES:
        raise ApiError(413, f"the message is larger than {MAX_BODY_BYTES} bytes")
    return message_in.parse(bytes(item), now)


def _result(message: MessageIn, acceptance: Acceptance, *, with_content: bool) -> MessageResultOut:
    match acceptance:
        case Accepted(message=accepted):
            shown = message.shown(accepted.id, accepted.accepted_at, with_content=with_content)
            return MessageResultOut(status=202, message=shown)
        case Duplicate(kind=KeyKind.IDEMPOTENCY_KEY, same_request=True, first=first, accepted_at=accepted_at):
            shown = message.shown(first, accepted_at, with_content=with_content)
            return MessageResultOut(status=202, message=shown, replayed=True)
        case Duplicate(kind=KeyKind.IDEMPOTENCY_KEY):
            return _error(ApiError(409, "this Idempotency-Key was used for another request"))
        case Duplicate():
            return _error(ApiError(409, "a message with this eventId was accepted already"))
        case Forbidden(error=error):
            return _error(error)
        case Violating(violations=violations):
            return _error(schemas.refusal(violations, "body", "payload"))


def _error(error: ApiError) -> MessageResultOut:
    detail = error.detail if isinstance(error.detail, str) else msgspec.convert(error.detail, list[ErrorItem])
    return MessageResultOut(status=error.status, code=error.code, detail=detail)
