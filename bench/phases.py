"""What is measured of the platform, each a phase that writes down what it found."""

import asyncio
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from bench.broker_load import BrokerLoad
from bench.check import message_of
from bench.children import said
from bench.figures import PARTS
from bench.load import Posted
from bench.processor import resident_mib
from bench.report import Measurements, percentile
from bench.world import Application, World

WINDOW: Final = 1000
"""So many deliveries are kept under way where the platform is saturated: enough for whole batches at each hop."""
_KIB: Final = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Saturated:
    """What came of a load as heavy as the platform takes it: cost is in microseconds of processor time each."""

    per_second: float
    cost_us: dict[str, float]


async def saturate(
    world: World, application: Application, *, deliveries: int, payload_bytes: int = _KIB, window: int = WINDOW
) -> Saturated:
    """Deliver so many, from the first POST to the last outcome's commit.

    What follows the ledger afterwards is counted in the cost, and not in the time.
    """
    before, at_first = world.used(), await world.sink.count()
    count = deliveries // application.fan_out
    posted = await world.post(application, count=count, window=window, payload_bytes=payload_bytes)
    return await _ended(world, posted, at_first, count * application.fan_out, before)


async def over_the_broker(world: World, application: Application, *, deliveries: int) -> Saturated:
    """As `saturate`, published to the broker."""
    before, at_first = world.used(), await world.sink.count()
    load = BrokerLoad(
        url=world.corner.amqp_url,
        prefix=world.corner.amqp_prefix,
        applications=[application.id, *application.others],
        count=deliveries,
        payload_bytes=_KIB,
        sink=world.sink.url,
        window=WINDOW,
    )
    posted = await said(Posted, "bench.broker_load", msgspec.json.encode(load).decode())
    world.accepted += posted.count
    return await _ended(world, posted, at_first, posted.count, before)


async def accept(world: World, application: Application, *, messages: int) -> float:
    """Messages accepted a second, with no dispatcher to take the processor, to an application without endpoints."""
    async with world.without_dispatcher():
        posted = await world.post(application, count=messages)
    await world.settled()
    return posted.per_second


@dataclass(frozen=True, slots=True, kw_only=True)
class Paced:
    """What came of a load of a steady rate: milliseconds from POST to the receiver's socket, and each one's cost."""

    latencies_ms: list[float]
    cost_us: dict[str, float]


async def pace(world: World, application: Application, *, rate: int, seconds: float) -> Paced:
    """Post at `rate` a second, whatever the answers do."""
    before = world.used()
    latencies = await arrivals(world, application, rate=rate, seconds=seconds)
    await world.settled()
    await world.told()
    return Paced(latencies_ms=latencies, cost_us=world.used().since(before, len(latencies)))


async def arrivals(world: World, application: Application, *, rate: int, seconds: float) -> list[float]:
    """Post at `rate` a second; milliseconds from POST to the receiver's socket, as soon as all have arrived.

    What else arrives meanwhile, below other folders of the sink, is left out.
    """
    folder = application.paths[0].split("/")[1]
    at_first, before = await world.sink.count(), await world.sink.count(folder)
    count = int(rate * seconds)
    await world.post(application, count=count, rate=float(rate), connections=max(32, rate // 4), payload_bytes=_KIB)
    await world.sink.until(before + count, folder)
    seen = [request for request in await world.sink.seen(at_first) if request.path.startswith(f"/{folder}/")]
    return [(request.arrived - request.sent) * 1000 for request in seen]


@dataclass(frozen=True, slots=True, kw_only=True)
class Retried:
    """What came of retries: how many were due a second, and by how many milliseconds each came late."""

    per_second: float
    late_ms: list[float]


async def retries(world: World, application: Application, *, deliveries: int, rate: float = 100.0) -> Retried:
    """Post at `rate` a second what fails once, and look when the second attempts came to the receiver."""
    at_first = await world.sink.count()
    await world.post(application, count=deliveries, rate=rate, connections=32, payload_bytes=_KIB)
    await world.sink.until(at_first + 2 * deliveries)
    await world.settled()
    rows = await world.database.fetch("""
        SELECT s.message, (convert_from(f.data, 'UTF8')::jsonb ->> 'due_at')::timestamptz AS due_at
        FROM hookledger.fact f JOIN projection_1.delivery_state s ON s.delivery = f.stream
        WHERE f.kind = 'RetryScheduled'
    """)
    due = {str(row["message"]): row["due_at"].timestamp() for row in rows}
    came: dict[str, list[float]] = {}
    for request in await world.sink.seen(at_first):
        came.setdefault(message_of(request.name), []).append(request.at)
    times = sorted(due[message] for message in came)
    middle = times[len(times) // 10 : -(len(times) // 10) or None]
    return Retried(
        per_second=len(middle) / (middle[-1] - middle[0]),
        late_ms=[(max(at) - due[message]) * 1000 for message, at in came.items() if len(at) > 1],
    )


class Memory:
    """Memory of the services, looked at now and then while something runs."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.most: dict[str, float] = {}

    async def watch(self) -> None:
        """Keep the most of each, until cancelled."""
        while True:
            self.look()
            await asyncio.sleep(0.5)

    def look(self) -> None:
        """Look once."""
        for name, pid in self._world.pids.items():
            self.most[name] = max(self.most.get(name, 0.0), resident_mib(pid))


def note_cost(measured: Measurements, name: str, cost_us: dict[str, float]) -> None:
    """Write down a cost whole and by part."""
    measured.figure(f"{name}_us", sum(cost_us.values()))
    for part in PARTS:
        if part in cost_us:  # a given server's processor is not ours to look at
            measured.figure(f"{name}_{part}_us", cost_us[part])


def note_latencies(measured: Measurements, name: str, latencies_ms: list[float]) -> None:
    """Write down percentiles."""
    measured.figure(f"{name}_p50_ms", percentile(latencies_ms, 0.50))
    measured.figure(f"{name}_p99_ms", percentile(latencies_ms, 0.99))


async def _ended(world: World, posted: Posted, at_first: int, deliveries: int, before: Any) -> Saturated:
    await world.sink.until(at_first + deliveries)
    seconds = await world.settled() - posted.began
    await world.told()
    return Saturated(per_second=deliveries / seconds, cost_us=world.used().since(before, deliveries))
