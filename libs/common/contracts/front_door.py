"""The operations that ingress answers itself; it forwards the others to the registry."""

from typing import Any, Final

import msgspec

from libs.common.contracts.messages import MessageIn, MessageOut
from libs.common.contracts.operations import ANYONE, Access, Operation, QueryParameter
from libs.common.contracts.registry import Scope


class ReceivedOut(msgspec.Struct):
    """What a provider is told: the id of the message that was committed."""

    id: str


CREATE_MESSAGE: Final = Operation(
    method="POST",
    path="/app/{app}/msg",
    id="v1.message.create",
    summary="Create a message",
    description="It is answered after the message is committed; then each endpoint that wants it is sent it.",
    access=Access(scope=Scope.PUBLISH),
    body=MessageIn,
    query=(
        QueryParameter(
            name="with_content",
            schema={"type": "boolean", "default": True},
            description="Whether the answer shows the payload.",
        ),
    ),
    answers={202: MessageOut},
    refusals=(405,),  # by the registry, where it is asked directly
)
RECEIVE: Final = Operation(
    method="POST",
    path="/in/{source}",
    id="v1.inbound.receive",
    summary="Receive a provider's webhook",
    description=(
        "The bytes are verified as the source says, then committed, then answered: 202, or what the provider expects. "
        "Challenges are answered as plain text. What is refused is kept, with its reason."
    ),
    access=ANYONE,
    body=Any,
    answers={200: (ReceivedOut, str), 202: ReceivedOut, 204: None},
    refusals=(400, 401, 404, 408, 413, 415, 422, 429, 503),
    root=True,
)
CHALLENGE: Final = Operation(
    method="GET",
    path="/in/{source}",
    id="v1.inbound.answer-challenge",
    summary="Give back a provider's challenge, where the source has a `challengeParameter`",
    access=ANYONE,
    answers={200: str},
    refusals=(400, 404, 405),
    root=True,
)
OPERATIONS: Final = (CREATE_MESSAGE, RECEIVE, CHALLENGE)
