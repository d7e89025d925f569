"""Erasing contents: a message's payload, or what an attempt brought back. The facts stay."""

from uuid import UUID

from libs.common.contracts.registry import ErasureDocument, Kind
from libs.common.domain import ids
from libs.common.domain.ids import BadIdError, Prefix
from libs.common.postgres.registry import Changes
from libs.common.runtime.clock import new_id
from services.registry import messages, objects
from services.registry.answers import NO_CONTENT, Answer
from services.registry.calls import Call
from services.registry.parsing import conflict, not_found


async def message_content(call: Call, changes: Changes) -> Answer:
    """Erase the payload of a message.

    Also the salt goes that keeps its hash from being guessed. What waits to be sent is cancelled when its time comes.
    """
    app = await objects.application(call)
    message = await messages.message_id(call, app.id)
    erased = await call.connection.fetchval(
        "DELETE FROM hookledger.message_body WHERE message = $1 RETURNING true", message
    )
    if erased:
        await _record(changes, call, app.id, ErasureDocument(message=message))
    return NO_CONTENT


async def attempt_content(call: Call, changes: Changes) -> Answer:
    """Erase the response to an attempt, and the query of the URL that it was sent to."""
    app = await objects.application(call)
    message = await messages.message_id(call, app.id)
    delivery, attempt = await _ended_attempt(call, app.id, message)
    erased = await call.connection.fetchval(
        """
        INSERT INTO hookledger.attempt_content AS c (delivery, attempt, erased) VALUES ($1, $2, true)
        ON CONFLICT (delivery, attempt) DO UPDATE SET response = NULL, url_query = NULL, erased = true
        WHERE NOT c.erased RETURNING true
        """,
        delivery,
        attempt,
    )
    if erased:
        await _record(changes, call, app.id, ErasureDocument(message=message, attempt=attempt))
    return NO_CONTENT


async def _ended_attempt(call: Call, app: UUID, message: UUID) -> tuple[UUID, UUID]:
    try:
        attempt = ids.decode(Prefix.ATTEMPT, call.named("attempt"))
    except BadIdError:
        raise not_found("attempt") from None
    delivery = await call.connection.fetchval(
        "SELECT delivery FROM projection_1.attempt WHERE message = $1 AND attempt = $2 AND app = $3",
        message,
        attempt,
        app,
    )
    if delivery is not None:
        return delivery, attempt
    flying = await call.connection.fetchval(
        "SELECT true FROM projection_1.delivery_state WHERE message = $1 AND attempt = $2 AND app = $3",
        message,
        attempt,
        app,
    )
    raise conflict("the attempt is under way: nothing of it is there to erase yet") if flying else not_found("attempt")


async def _record(changes: Changes, call: Call, app: UUID, document: ErasureDocument) -> None:
    await changes.create(Kind.ERASURE, new_id(), document, org=call.caller.org, app=app)
