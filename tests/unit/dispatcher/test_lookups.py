"""Places for lookups: many for one who is alone, one at least for whoever comes, and none lost."""

import asyncio
from uuid import UUID

from services.dispatcher.lookups import LookupPlaces

PLACES = 64


def _app(number: int) -> UUID:
    return UUID(int=number)


async def _take_all_it_gets(places: LookupPlaces, app: UUID) -> tuple[int, "asyncio.Task[None]"]:
    """How many places an application gets at once, and its first wait."""
    taken = 0
    while True:
        taking = asyncio.create_task(places.take(app))
        await asyncio.sleep(0)
        if not taking.done():
            return taken, taking
        taken += 1


async def _end(*waiting: "asyncio.Task[None]") -> None:
    for each in waiting:
        each.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)


async def test_one_application_gets_a_ninth_at_most() -> None:
    places = LookupPlaces(PLACES)
    taken, waiting = await _take_all_it_gets(places, _app(1))
    assert taken == PLACES // 9
    await _end(waiting)


async def test_sixteen_that_take_what_they_get_leave_a_place_to_the_next() -> None:
    places = LookupPlaces(PLACES)
    waits = [(await _take_all_it_gets(places, _app(number)))[1] for number in range(16)]
    await asyncio.wait_for(places.take(_app(99)), 1)
    await _end(*waits)


async def test_whoever_waits_goes_on_when_a_lookup_is_over_all_in_turns() -> None:
    places = LookupPlaces(1)
    await places.take(_app(1))
    served: list[int] = []

    async def look_up(app: int) -> None:
        await places.take(_app(app))
        served.append(app)
        places.give_back(_app(app))

    async with asyncio.TaskGroup() as tasks:
        for app in (1, 1, 2, 3):
            tasks.create_task(look_up(app))
        await asyncio.sleep(0)
        assert served == []
        places.give_back(_app(1))
    assert served == [1, 2, 3, 1]


async def test_a_place_goes_past_one_who_has_given_up() -> None:
    places = LookupPlaces(1)
    await places.take(_app(1))
    gone, next_one = (asyncio.create_task(places.take(_app(app))) for app in (1, 2))
    await asyncio.sleep(0)
    gone.cancel()
    places.give_back(_app(1))  # before it could leave the line
    await asyncio.wait_for(next_one, 1)
    await _end(gone)


async def test_one_who_gives_up_as_its_turn_comes_gives_the_place_back() -> None:
    places = LookupPlaces(1)
    await places.take(_app(1))
    gone, next_one = (asyncio.create_task(places.take(_app(app))) for app in (1, 2))
    await asyncio.sleep(0)
    places.give_back(_app(1))
    gone.cancel()
    await asyncio.wait_for(next_one, 1)
    await _end(gone)
