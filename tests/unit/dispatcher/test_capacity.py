"""How much a process may have in flight: a limit for all, and its share of what endpoints and applications may."""

import asyncio
from contextlib import ExitStack
from dataclasses import replace

from libs.common.domain.allowance import LEAST, Allowance
from libs.common.domain.endpoint import Endpoint
from libs.common.domain.ids import time_ordered
from libs.common.domain.lanes import Standing
from services.dispatcher.capacity import Capacity

APP = time_ordered(2, bytes(10))
ENDPOINT = Endpoint(id=time_ordered(1, bytes(10)), app=APP, version=1, url="https://a.example/", max_inflight=8)
OTHER = Endpoint(id=time_ordered(3, bytes(10)), app=APP, version=1, url="https://b.example/", max_inflight=8)
ALONE = Standing()
VERSION = 1
ONE_OF_TWO = Standing(rank=0, of=2)


def test_first_attempts_take_this_replicas_share_of_the_endpoint() -> None:
    capacity = Capacity(100)
    assert [capacity.take_direct(ENDPOINT, ONE_OF_TWO) for _ in range(6)] == [True] * 4 + [False] * 2
    assert capacity.take_direct(OTHER, ONE_OF_TWO)
    assert capacity.in_flight == 5


def test_first_and_claimed_attempts_come_out_of_the_same_share() -> None:
    capacity = Capacity(100)
    assert capacity.full(VERSION) == []
    for _ in range(3):
        capacity.take(ENDPOINT.id, APP)
    assert capacity.room_for(ENDPOINT, ONE_OF_TWO) == 1
    assert capacity.take_direct(ENDPOINT, ONE_OF_TWO)
    assert capacity.room_for(ENDPOINT, ONE_OF_TWO) == 0
    assert capacity.full(VERSION) == [ENDPOINT.id]


def test_the_limit_for_all_holds_for_first_and_claimed_attempts_together() -> None:
    capacity = Capacity(3)
    capacity.take(OTHER.id, APP)
    capacity.take(OTHER.id, APP)
    assert capacity.take_direct(ENDPOINT, ALONE)
    assert not capacity.take_direct(OTHER, ALONE)
    assert capacity.free == 0


def test_what_is_given_back_can_be_taken_again_and_wakes_who_waits() -> None:
    capacity = Capacity(1)
    assert capacity.take_direct(ENDPOINT, ALONE)
    capacity.give_back(ENDPOINT.id, APP)
    assert capacity.freed.is_set()
    assert not capacity.room.is_set(), "nobody found the endpoint full"
    assert capacity.take_direct(OTHER, ALONE)


def test_an_endpoint_that_was_found_full_says_when_it_has_room_again() -> None:
    capacity = Capacity(100)
    while capacity.take_direct(ENDPOINT, ONE_OF_TWO):
        pass
    capacity.give_back(ENDPOINT.id, APP)
    assert capacity.room.is_set()
    assert capacity.full(VERSION) == []


def test_the_endpoints_of_an_application_share_what_it_may_have_in_flight() -> None:
    one, other = (replace(endpoint, app_max_inflight=6) for endpoint in (ENDPOINT, OTHER))
    capacity = Capacity(100)
    assert capacity.full(VERSION) == []
    assert [capacity.take_direct(one, ONE_OF_TWO) for _ in range(2)] == [True, True]
    assert capacity.app_room_for(other, ONE_OF_TWO) == 1
    assert capacity.take_direct(other, ONE_OF_TWO)
    assert not capacity.take_direct(other, ONE_OF_TWO)
    assert capacity.full(VERSION) == [APP]
    capacity.give_back(one.id, APP)
    assert capacity.room.is_set()
    assert capacity.take_direct(other, ONE_OF_TWO)
    assert capacity.app_room_for(ENDPOINT, ONE_OF_TWO) is None, "without a limit there is none"


def test_when_another_replica_goes_what_was_its_share_is_ours() -> None:
    capacity = Capacity(100)
    while capacity.take_direct(ENDPOINT, ONE_OF_TWO):
        pass
    capacity.shared_anew()
    assert capacity.room.is_set()
    assert capacity.take_direct(ENDPOINT, ALONE)


def test_with_another_version_of_the_registry_nobody_is_known_to_be_full() -> None:
    capacity = Capacity(100)
    assert capacity.full(VERSION) == []
    assert not capacity.take_direct(replace(ENDPOINT, max_inflight=1), Standing(rank=1, of=2))
    assert capacity.full(VERSION) == [ENDPOINT.id], "nothing of it is in flight here, and nothing will be over"
    assert capacity.full(VERSION + 1) == []


def test_beside_what_is_fresh_a_backlog_has_places_of_its_own_and_those_at_their_receivers_take_none() -> None:
    capacity = Capacity(200)
    for _ in range(LEAST):
        capacity.take(OTHER.id, APP)
    assert capacity.claimable == 200 - LEAST, "nothing is fresh"
    assert capacity.take_direct(ENDPOINT, ALONE)
    assert capacity.claimable == 0
    with ExitStack() as sending:
        for _ in range(LEAST // 2):
            sending.enter_context(capacity.sending(claimed=True))
        assert capacity.claimable == LEAST // 2
        assert capacity.freed.is_set()
    assert capacity.claimable == 0
    for _ in range(LEAST):
        capacity.give_back(OTHER.id, APP, claimed=True)
    assert capacity.claimable == LEAST


async def test_a_backlog_makes_room_while_what_is_fresh_finds_the_process_late() -> None:
    capacity = Capacity(200)
    capacity._allowance = Allowance(places=200, most=200)
    capacity.take(OTHER.id, APP)
    async with asyncio.TaskGroup() as tasks, asyncio.timeout(10):
        watching = tasks.create_task(capacity.watch())
        while capacity.claimable > 100:
            assert capacity.take_direct(ENDPOINT, ALONE), "what is fresh has every place"
            capacity.give_back(ENDPOINT.id, APP)
            sum(range(300_000))  # what keeps the process busy
            await asyncio.sleep(0)
        watching.cancel()
