"""What the demo has seen from three sides (who sent, who received, and the registry), and whether they agree."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from deploy.demo.api import Answer
from deploy.demo.receivers import Inbox
from deploy.demo.senders import Sent

SCHEDULE: Final = (0.2, 0.5, 1.0)
ATTEMPTS: Final = len(SCHEDULE) + 1
TERMINAL: Final = frozenset({"succeeded", "exhausted", "refused", "gone", "cancelled", "expired"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One attempt as the ledger tells it. `status` is None where no answer came; `sends` how often it was sent."""

    result: str
    status: int | None
    sends: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """One delivery as the registry tells it."""

    message: str
    event_type: str
    receiver: str
    status: str
    attempts: tuple[Attempt, ...]

    @property
    def unknown(self) -> int:
        """Attempts whose outcome nobody recorded."""
        return sum(attempt.result == "unknown" for attempt in self.attempts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """Everything that was sent, received and recorded.

    Attributes:
        sent: the accepted messages.
        duplicate: the answer to the duplicate of `sent[0]`.
        forged: the answer to the forged request.
        inboxes: the receivers' own logs.
        messages: the ids of the messages that the registry has.
        deliveries: from the registry.
        rejected: how many requests the registry keeps as rejected.
        verified: what `verify` printed last, and whether it exited with 0.
    """

    sent: Sequence[Sent]
    duplicate: Answer
    forged: Answer
    inboxes: Sequence[Inbox]
    messages: Sequence[str]
    deliveries: Sequence[Delivery]
    rejected: int
    verified: tuple[str, bool]

    @property
    def delivered(self) -> int:
        """Deliveries that succeeded."""
        return sum(delivery.status == "succeeded" for delivery in self.deliveries)

    @property
    def retried(self) -> int:
        """Deliveries that took more than one attempt."""
        return sum(len(delivery.attempts) > 1 for delivery in self.deliveries)

    @property
    def exhausted(self) -> int:
        """Deliveries whose retries are spent."""
        return sum(delivery.status == "exhausted" for delivery in self.deliveries)

    @property
    def duplicates(self) -> int:
        """Duplicates that were answered as such, with the first id."""
        replayed = self.duplicate.headers.get("Idempotent-Replayed") == "true"
        return int(replayed and self.duplicate.status < 300 and self.duplicate.id == self.sent[0].id)

    @property
    def lost(self) -> int:
        """Message and receiver pairs without a delivery that came to its end."""
        ended = Counter((delivery.message, delivery.receiver) for delivery in self.deliveries if _over(delivery))
        return len(self.sent) * len(self.inboxes) - sum(count == 1 for count in ended.values())

    def problems(self) -> Iterator[str]:
        """What is not as it should be, one line each."""
        yield from self._wrong_answers()
        yield from self._wrong_messages()
        for inbox in self.inboxes:
            for sent, message in self._pairs():
                yield from _wrong_delivery(sent, message, inbox, self._of(message, inbox))
            if inbox.forged:
                yield f"{inbox.name} got {inbox.forged} requests that do not verify"
        if self.lost:
            yield f"{self.lost} deliveries did not come to their end"
        if not any(delivery.unknown for delivery in self.deliveries):
            yield "the kill interrupted nothing: no attempt has an unknown outcome"
        if not self.verified[1]:
            yield f"the ledger does not verify: {self.verified[0]}"

    def _wrong_answers(self) -> Iterator[str]:
        if not self.duplicates:
            yield f"the duplicate was answered {self.duplicate.status}, not with the first message's id"
        if self.forged.status != 401:
            yield f"the forged request was answered {self.forged.status}, not 401"
        if self.rejected != 1:
            yield f"the registry keeps {self.rejected} rejected requests, not 1"

    def _wrong_messages(self) -> Iterator[str]:
        known = {sent.id for sent in self.sent if sent.id is not None}
        if len(self.messages) != len(self.sent) or not known <= set(self.messages):
            yield f"{len(self.sent)} messages were accepted, the registry has {len(self.messages)}"

    def _pairs(self) -> Iterator[tuple[Sent, str]]:
        """Each accepted message with its id in the registry; the broker's is the one that is left."""
        left = [message for message in self.messages if message not in {sent.id for sent in self.sent}]
        for sent in self.sent:
            yield sent, sent.id or (left.pop() if left else "")

    def _of(self, message: str, inbox: Inbox) -> list[Delivery]:
        return [each for each in self.deliveries if (each.message, each.receiver) == (message, inbox.name)]


def read_attempts(facts: Sequence[dict[str, Any]]) -> tuple[Attempt, ...]:
    """The attempts in one delivery's ledger, in their order."""
    attempts = []
    for fact in facts:
        data = fact["data"]
        match fact["kind"]:
            case "AttemptEnded":
                result = data["status"] or data["failure"]
                attempts.append(Attempt(result=str(result), status=data["status"], sends=data["sends"]))
            case "AttemptOutcomeUnknown":
                attempts.append(Attempt(result="unknown", status=None, sends=1))
            case "AttemptAbandoned":
                attempts.append(Attempt(result="abandoned", status=None, sends=0))
    return tuple(attempts)


def _wrong_delivery(sent: Sent, message: str, inbox: Inbox, found: list[Delivery]) -> Iterator[str]:
    """What the registry and the receiver disagree on for one message."""
    what = f"{sent.event_type} to {inbox.name}"
    if len(found) != 1:
        yield f"{what}: {len(found)} deliveries, not 1"
        return
    [delivery] = found
    answered = [attempt for attempt in delivery.attempts if attempt.result not in {"unknown", "abandoned"}]
    if inbox.name == "down":
        if (delivery.status, len(answered)) != ("exhausted", ATTEMPTS):
            yield f"{what}: {delivery.status} after {len(answered)} attempts, not exhausted after {ATTEMPTS}"
        return
    records = [record for record in inbox.records if record.message == message]
    if delivery.status != "succeeded" or not any(record.status < 300 for record in records):
        yield f"{what}: {delivery.status} in the registry, answered {[record.status for record in records]}"
    # What the receiver answered and the ledger does not know went to a dispatcher that was dead by then.
    unread = _without([record.status for record in records], [attempt.status for attempt in answered])
    repeated = sum(attempt.sends for attempt in answered) - len(answered)  # on connections that had gone stale
    if unread is None or unread > delivery.unknown + repeated:
        yield f"{what}: the ledger and the receiver's own log disagree on the answers"
    if not all(_carries(record.body, sent.payload, wrapped=inbox.name == "x-webhook") for record in records):
        yield f"{what}: the bytes that came are not those that were sent"


def _without(logged: Sequence[int], recorded: Sequence[int | None]) -> int | None:
    """How many of the logged answers are not recorded; None where one is recorded that was never logged."""
    unread = 0
    expected = list(recorded)
    for status in logged:
        if expected and expected[0] == status:
            expected.pop(0)
        else:
            unread += 1
    return None if expected else unread


def _carries(body: bytes, payload: bytes, *, wrapped: bool) -> bool:
    return body.endswith(b'"data":' + payload + b"}") if wrapped else body == payload


def _over(delivery: Delivery) -> bool:
    return delivery.status in TERMINAL
