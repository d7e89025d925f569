"""The operations that ingress answers itself; it forwards the others to the registry."""

from typing import Any, Final

import msgspec

from libs.common.contracts.messages import MessageBatchIn, MessageBatchOut, MessageIn, MessageOut
from libs.common.contracts.operations import ANYONE, Access, Operation, QueryParameter, Time
from libs.common.contracts.registry import Scope


class ReceivedOut(msgspec.Struct):
    """What a provider is told: the id of the message that was committed."""

    id: str


class ReverifyIn(msgspec.Struct, rename="camel"):
    """Whether a signature that is right counts whatever its timestamp says."""

    ignore_timestamp: bool = False


class ReverifiedOut(msgspec.Struct, rename="camel", kw_only=True):
    """Whether the sender is believed, and whether a message can be made of what came; else why not."""

    id: str
    verified: bool
    acceptable: bool
    reason: str | None
    timestamp_ignored: bool


class AdmittedOut(msgspec.Struct, rename="camel"):
    """The id of the message that it became."""

    id: str
    rejected_at: Time


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
CREATE_BATCH: Final = Operation(
    method="POST",
    path="/app/{app}/msg/batch",
    id="v1.message.create-batch",
    summary="Create up to 1,000 messages at once",
    description=(
        "They are committed together, at most 5 MiB. What is wrong with one is that one's result; the others are "
        "accepted."
    ),
    access=Access(scope=Scope.PUBLISH),
    body=MessageBatchIn,
    query=(
        QueryParameter(
            name="with_content",
            schema={"type": "boolean", "default": False},
            description="Whether the answer shows the payloads.",
        ),
    ),
    answers={200: MessageBatchOut},
    refusals=(405,),
)
REVERIFY: Final = Operation(
    method="POST",
    path="/app/{app}/rejected/{rejected}/re-verify",
    id="v1.rejected.re-verify",
    summary="Judge a rejected request again, by the secrets that its source has now",
    access=Access(scope=Scope.ADMIN),
    body=ReverifyIn,
    body_required=False,
    answers={200: ReverifiedOut},
    refusals=(405,),
    repeatable=True,
)
ADMIT: Final = Operation(
    method="POST",
    path="/app/{app}/rejected/{rejected}/admit",
    id="v1.rejected.admit",
    summary="Accept a rejected request as a message; done twice, it is one message",
    access=Access(scope=Scope.ADMIN),
    answers={202: AdmittedOut},
    refusals=(405,),
    repeatable=True,
)
RECEIVE: Final = Operation(
    method="POST",
    path="/in/{source}",
    id="v1.inbound.receive",
    summary="Receive a provider's webhook",
    description=(
        "The bytes are verified as the source says, then committed, then answered: 202, or what the provider expects. "
        "Challenges are answered as plain text, Slack's commands with an empty 200. What is refused is kept, with its "
        "reason."
    ),
    access=ANYONE,
    body=Any,
    answers={200: (ReceivedOut, str, None), 202: ReceivedOut, 204: None},
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
OPERATIONS: Final = (CREATE_MESSAGE, CREATE_BATCH, REVERIFY, ADMIT, RECEIVE, CHALLENGE)
