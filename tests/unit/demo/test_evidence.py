"""The demo exits with 0 only if everything that it claims is true: each lie is found out."""

from collections.abc import Callable, Mapping
from dataclasses import replace

import orjson
import pytest

from deploy.demo.api import Answer
from deploy.demo.evidence import Attempt, Delivery, Evidence, read_attempts
from deploy.demo.receivers import Inbox, Record
from deploy.demo.senders import Sent

ORDER = Sent(event_type="order.completed", payload=b'{"n": 1.0}', id="msg_1")
SHIPMENT = Sent(event_type="shipment.sent", payload=b'{"n": 2}', id=None)
REPLAYED = {"Idempotent-Replayed": "true"}


def answer(status: int, identity: str = "", headers: Mapping[str, str] | None = None) -> Answer:
    return Answer(status=status, headers=headers or {}, body=orjson.dumps({"id": identity}))


def attempt(result: str) -> Attempt:
    return Attempt(result=result, status=int(result) if result.isdigit() else None, sends=1)


def delivery(message: str, receiver: str, status: str, *results: str) -> Delivery:
    attempts = tuple(map(attempt, results))
    return Delivery(message=message, event_type="x", receiver=receiver, status=status, attempts=attempts)


def record(message: str, body: bytes, status: int) -> Record:
    return Record(message=message, body=body, status=status)


def true_evidence() -> Evidence:
    return Evidence(
        sent=[ORDER, SHIPMENT],
        duplicate=answer(202, "msg_1", REPLAYED),
        forged=answer(401),
        inboxes=[
            Inbox(
                name="verified",
                records=[
                    record("msg_1", ORDER.payload, 204),
                    record("msg_1", ORDER.payload, 204),
                    record("msg_2", SHIPMENT.payload, 204),
                ],
            ),
            Inbox(
                name="x-webhook",
                records=[
                    record("msg_1", b'{"id":"msg_1","data":' + ORDER.payload + b"}", 200),
                    record("msg_2", b'{"id":"msg_2","data":' + SHIPMENT.payload + b"}", 200),
                ],
            ),
            Inbox(name="down"),
        ],
        messages=["msg_1", "msg_2"],
        deliveries=[
            delivery("msg_1", "verified", "succeeded", "unknown", "204"),
            delivery("msg_1", "x-webhook", "succeeded", "200"),
            delivery("msg_1", "down", "exhausted", *["connect_failed"] * 4),
            delivery("msg_2", "verified", "succeeded", "204"),
            delivery("msg_2", "x-webhook", "succeeded", "200"),
            delivery("msg_2", "down", "exhausted", *["connect_failed"] * 4),
        ],
        rejected=1,
        verified=("ledger: verified", True),
    )


def test_the_truth_has_no_problems() -> None:
    evidence = true_evidence()
    assert list(evidence.problems()) == []
    counts = (evidence.delivered, evidence.retried, evidence.exhausted, evidence.duplicates, evidence.lost)
    assert counts == (4, 3, 2, 1, 0)


def swapped(evidence: Evidence, number: int, other: Delivery) -> Evidence:
    deliveries = list(evidence.deliveries)
    deliveries[number] = other
    return replace(evidence, deliveries=deliveries)


def logged(evidence: Evidence, inbox: int, *records: Record, forged: int = 0) -> Evidence:
    inboxes = list(evidence.inboxes)
    inboxes[inbox] = Inbox(name=inboxes[inbox].name, records=list(records), forged=forged)
    return replace(evidence, inboxes=inboxes)


LIES: dict[str, Callable[[Evidence], Evidence]] = {
    "the duplicate was another message": lambda it: replace(it, duplicate=answer(202, "msg_2", REPLAYED)),
    "the duplicate was not recognised": lambda it: replace(it, duplicate=answer(202, "msg_1")),
    "the forged request was accepted": lambda it: replace(it, forged=answer(202, "msg_3")),
    "nothing was kept as rejected": lambda it: replace(it, rejected=0),
    "a message is missing": lambda it: replace(it, messages=["msg_1"]),
    "a message is there twice": lambda it: replace(it, messages=["msg_1", "msg_2", "msg_3"]),
    "the ledger does not verify": lambda it: replace(it, verified=("ledger: 1 differences", False)),
    "a delivery is missing": lambda it: replace(it, deliveries=it.deliveries[1:]),
    "a delivery is there twice": lambda it: replace(it, deliveries=[*it.deliveries, it.deliveries[0]]),
    "a delivery is not over": lambda it: swapped(it, 3, delivery("msg_2", "verified", "waiting", "500")),
    "a delivery was given up": lambda it: swapped(it, 3, delivery("msg_2", "verified", "exhausted", "204")),
    "the kill interrupted nothing": lambda it: swapped(it, 0, delivery("msg_1", "verified", "succeeded", "204", "204")),
    "the ledger has an answer that nobody gave": lambda it: swapped(
        it, 3, delivery("msg_2", "verified", "succeeded", "503", "204")
    ),
    "the ledger lacks an answer": lambda it: swapped(it, 0, delivery("msg_1", "verified", "succeeded", "204")),
    "the dead endpoint was tried too seldom": lambda it: swapped(
        it, 2, delivery("msg_1", "down", "exhausted", *["connect_failed"] * 3)
    ),
    "the dead endpoint was tried too often": lambda it: swapped(
        it, 2, delivery("msg_1", "down", "exhausted", *["connect_failed"] * 5)
    ),
    "the dead endpoint succeeded": lambda it: swapped(it, 2, delivery("msg_1", "down", "succeeded", "200")),
    "a receiver got nothing": lambda it: logged(it, 0),
    "a receiver got other bytes": lambda it: logged(
        it, 0, *[record("msg_1", b'{"n":1.0}', 204)] * 2, record("msg_2", SHIPMENT.payload, 204)
    ),
    "a receiver got what does not verify": lambda it: logged(it, 0, *it.inboxes[0].records, forged=1),
    "a receiver was asked once too often": lambda it: logged(it, 1, *it.inboxes[1].records, it.inboxes[1].records[0]),
}


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES)
def test_every_lie_is_found_out(lie: Callable[[Evidence], Evidence]) -> None:
    assert list(lie(true_evidence()).problems())


def test_attempts_are_read_from_the_ledger_as_the_api_shows_it() -> None:
    facts = [
        {"kind": "DeliveryScheduled", "data": {}},
        {"kind": "AttemptStarted", "data": {}},
        {"kind": "AttemptOutcomeUnknown", "data": {}},
        {"kind": "AttemptStarted", "data": {}},
        {"kind": "AttemptEnded", "data": {"status": None, "failure": "timeout", "sends": 2}},
        {"kind": "AttemptAbandoned", "data": {}},
        {"kind": "AttemptEnded", "data": {"status": 200, "failure": None, "sends": 1}},
    ]
    assert [(found.result, found.status, found.sends) for found in read_attempts(facts)] == [
        ("unknown", None, 1),
        ("timeout", None, 2),
        ("abandoned", None, 0),
        ("200", 200, 1),
    ]
