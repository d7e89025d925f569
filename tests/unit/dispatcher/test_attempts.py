"""Attempts: each one's place is given back, however it ends."""

from datetime import UTC, datetime
from typing import Any

from libs.common.domain.addresses import AddressPolicy
from libs.common.domain.delivery import evolve, scheduled, start
from libs.common.domain.endpoint import Endpoint, Rule
from libs.common.domain.facts import DeliveryScheduled, Origin
from libs.common.domain.lanes import Standing
from libs.common.domain.message import Message
from libs.common.runtime.clock import new_id
from services.dispatcher.attempts import Attempts
from services.dispatcher.capacity import Capacity
from services.dispatcher.flight import Flight
from services.dispatcher.planning import attempt_command

UNUSED: Any = None


async def test_an_attempt_that_is_dropped_before_it_began_gives_its_place_back() -> None:
    at, app = datetime.now(UTC), new_id()
    endpoint = Endpoint(id=new_id(), app=app, version=1, url="http://localhost")
    message = Message(
        id=new_id(), org=new_id(), app=app, event_type="order", body=b"{}", accepted_at=at, registry_version=1,
        origin=Origin.API, publish=False,
    )  # fmt: skip
    waiting = scheduled(
        DeliveryScheduled(
            at=at, app=app, message=message.id, endpoint=endpoint.id, config_version=1, rule=Rule.ALL, due_at=at
        )
    )
    started = start(waiting, attempt_command(endpoint, at, new_id()))
    capacity = Capacity(8)
    attempts = Attempts(UNUSED, UNUSED, UNUSED, capacity, AddressPolicy(development=True), breaking=UNUSED)
    assert capacity.take_direct(endpoint, Standing())
    attempts.begin(
        Flight(
            delivery=new_id(), state=evolve(waiting, started), started=started, message=message, endpoint=endpoint,
            lane=endpoint.id, counted=False, lease=1,
        )
    )  # fmt: skip
    assert capacity.in_flight == 1
    await attempts.drop()
    assert capacity.in_flight == 0
