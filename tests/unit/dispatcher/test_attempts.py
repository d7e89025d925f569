"""Attempts: each one's place is given back, however it ends."""

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest
import structlog

from libs.common.domain.addresses import AddressPolicy
from libs.common.domain.delivery import evolve, scheduled, start
from libs.common.domain.endpoint import Endpoint, Rule
from libs.common.domain.facts import DeliveryScheduled, Origin
from libs.common.domain.ids import Prefix, encode
from libs.common.domain.lanes import Standing
from libs.common.domain.message import Message
from libs.common.runtime.clock import new_id
from services.dispatcher.attempts import Attempts
from services.dispatcher.capacity import Capacity
from services.dispatcher.flight import Flight
from services.dispatcher.planning import attempt_command

UNUSED: Any = None


def _flight(endpoint: Endpoint) -> Flight:
    at = datetime.now(UTC)
    message = Message(
        id=new_id(), org=new_id(), app=endpoint.app, event_type="order", body=b"{}", accepted_at=at, registry_version=1,
        origin=Origin.API, publish=False,
    )  # fmt: skip
    waiting = scheduled(
        DeliveryScheduled(
            at=at, app=endpoint.app, message=message.id, endpoint=endpoint.id, config_version=1, rule=Rule.ALL,
            due_at=at,
        )
    )  # fmt: skip
    started = start(waiting, attempt_command(endpoint, at, new_id()))
    return Flight(
        delivery=new_id(), state=evolve(waiting, started), started=started, message=message, endpoint=endpoint,
        lane=endpoint.id, counted=False, lease=1,
    )  # fmt: skip


def _attempts(capacity: Capacity) -> Attempts:
    return Attempts(UNUSED, UNUSED, UNUSED, capacity, AddressPolicy(development=True))


async def test_an_attempt_that_is_dropped_before_it_began_gives_its_place_back() -> None:
    endpoint, capacity = Endpoint(id=new_id(), app=new_id(), version=1, url="http://localhost"), Capacity(8)
    attempts = _attempts(capacity)
    assert capacity.take_direct(endpoint, Standing())
    attempts.begin(_flight(endpoint))
    assert capacity.in_flight == 1
    await attempts.drop()
    assert capacity.in_flight == 0


async def test_an_attempt_that_goes_wrong_here_says_which_it_is_and_gives_its_place_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("services.dispatcher.attempts.UNKNOWN_AFTER_SECONDS", 0.0)
    endpoint, capacity = Endpoint(id=new_id(), app=new_id(), version=1, url="http://localhost"), Capacity(8)
    flight = _flight(endpoint)
    assert capacity.take_direct(endpoint, Standing())
    with structlog.testing.capture_logs() as lines:
        _attempts(capacity).begin(flight)
        await asyncio.wait_for(capacity.freed.wait(), 5)
    assert capacity.in_flight == 0
    named = encode(Prefix.DELIVERY, flight.delivery), encode(Prefix.MESSAGE, flight.message.id)
    assert [(line["event"], line["delivery"], line["message"]) for line in lines] == [
        ("attempt.failed_here", *named),
        ("attempt.left_in_flight", *named),
    ]
