"""How much a process may have in flight: a limit for all, and for each endpoint its share."""

from libs.common.domain.endpoint import Endpoint
from libs.common.domain.ids import time_ordered
from services.dispatcher.capacity import Capacity

ENDPOINT = Endpoint(
    id=time_ordered(1, bytes(10)), app=time_ordered(2, bytes(10)), version=1, url="https://a.example/", max_inflight=8
)
OTHER = Endpoint(
    id=time_ordered(3, bytes(10)), app=time_ordered(2, bytes(10)), version=1, url="https://b.example/", max_inflight=8
)


def test_first_attempts_take_this_replicas_share_of_the_endpoint() -> None:
    capacity = Capacity(100)
    assert [capacity.take_direct(ENDPOINT, dispatchers=2) for _ in range(6)] == [True] * 4 + [False] * 2
    assert capacity.take_direct(OTHER, dispatchers=2)
    assert capacity.in_flight == 5


def test_a_share_is_never_nothing_however_many_replicas_there_are() -> None:
    capacity = Capacity(100)
    assert capacity.take_direct(ENDPOINT, dispatchers=50)
    assert not capacity.take_direct(ENDPOINT, dispatchers=50)


def test_the_limit_for_all_holds_for_first_and_claimed_attempts_together() -> None:
    capacity = Capacity(3)
    capacity.take_claimed()
    capacity.take_claimed()
    assert capacity.take_direct(ENDPOINT, dispatchers=1)
    assert not capacity.take_direct(OTHER, dispatchers=1)
    assert capacity.free == 0


def test_what_is_given_back_can_be_taken_again_and_wakes_who_waits() -> None:
    capacity = Capacity(1)
    assert capacity.take_direct(ENDPOINT, dispatchers=1)
    capacity.give_back(ENDPOINT.id, direct=True)
    assert capacity.freed.is_set()
    assert capacity.take_direct(OTHER, dispatchers=1)
