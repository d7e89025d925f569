"""What a receiver's log says of an order, and how the sink answers."""

import pytest

from bench import sink
from bench.dispatch.order import Order, judged

ACCEPTED = {"a0": "a", "b0": "b", "a1": "a", "a2": "a", "b1": "b"}


@pytest.mark.parametrize(
    ("came", "late", "missing"),
    [
        ("a0 b0 a1 a2 b1", 0, 0),
        ("b0 b1 a0 a1 a2", 0, 0),  # keys have nothing to do with one another
        ("a0 a0 a1 a1 a1 a2 b0 b0 b1", 0, 0),  # the last one may come again
        ("a0 a1 a0 a2 b0 b1", 1, 0),
        ("a0 a2 a1 b0 b1", 1, 0),
        ("a0 a2 b0 b1", 0, 1),
    ],
)
def test_within_a_key_nothing_comes_after_what_was_accepted_later(came: str, late: int, missing: int) -> None:
    assert judged(ACCEPTED, came.split()) == Order(requests=len(came.split()), late=late, missing=missing)


def test_the_sink_asks_each_message_to_come_again_in_its_turn() -> None:
    head = b"POST /due/1000/10/x HTTP/1.1\r\nwebhook-id: %b\r\n\r\n"
    answers = []
    for name in (b"m0", b"m10", b"m10"):
        request = head % name
        answers.append(sink._answer(request, request.index(b"\r\n\r\n"), 0.0, 990.0))
    assert [b"Retry-After: 10\r\n" in (answer or b"") for answer in answers] == [True, True, False]
    assert (answers[2] or b"").startswith(b"HTTP/1.1 200 ")
