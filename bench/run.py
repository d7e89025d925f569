"""One run: everything in turn, ceilings and figures interleaved, and the check at its end."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from bench import phases
from bench.check import check
from bench.children import listening, said
from bench.load import Load, Posted
from bench.peers import race
from bench.phases import Memory, Saturated
from bench.plan import Plan
from bench.report import Measurements, percentile
from bench.world import Application, World, running
from deploy.stack.installation import Installation
from deploy.stack.isolation import Isolation, isolated
from deploy.stack.servers import Servers

Say = Callable[[str], None]
_KIB: Final = 1024
_CONNECTIONS: Final = 64
_RATES: Final = (50, 500, 1000)
_APPLICATIONS: Final = 100
"""So many take turns where the platform is saturated, so that no endpoint comes to its `max_inflight`."""


class Client(msgspec.Struct, frozen=True):
    """What the bare client says."""

    per_second: float
    cpu_us: float


class Appends(msgspec.Struct, frozen=True):
    """Rows a second."""

    raw: float
    facts: float
    projected: float


class Hops(msgspec.Struct, frozen=True):
    """What the broker's ceilings are."""

    envelopes: float
    commits_and_hop_ms: float


async def measure(plan: Plan, servers: Servers, folder: Path, say: Say) -> Measurements:
    """Run everything.

    Raises:
        StackError: something failed, or what was measured is not true.
    """
    measured = Measurements()
    with isolated(servers, label="appends") as corner:
        await asyncio.to_thread(Installation(folder=folder / "appends", corner=corner).migrate)
        async with running(servers, folder) as world:
            run = Run(plan, measured, world, corner, say)
            await run.everything()
            say("check: verify, and the sink's own account")
            say(await check(world))
    return measured


class Run:
    """The phases of a run, in their order."""

    def __init__(self, plan: Plan, measured: Measurements, world: World, appends: Isolation, say: Say) -> None:
        self._plan = plan
        self._measured = measured
        self._world = world
        self._appends = appends
        self._say = say

    async def everything(self) -> None:
        """Measure everything."""
        world = self._world
        self._hot = await world.application("hot", ["/hot"])
        self._one = await world.applications("one", _APPLICATIONS, 1)
        self._ten = await world.applications("ten", _APPLICATIONS // 5, 10)
        self._none = await world.application("none", [])
        flaky = await world.application("flaky", ["/retry/one"], retrySchedule=[1.0])
        rest = Memory(world)
        rest.look()
        await world.settle_in()
        await phases.saturate(world, self._one, deliveries=500)  # plans, connections and code warm up
        load = Memory(world)
        watching = asyncio.create_task(load.watch())
        for number in range(self._plan.rounds):
            self._say(f"round {number + 1} of {self._plan.rounds}")
            await self._round()
        await self._once()
        self._say("retries")
        retried = await phases.retries(world, flaky, deliveries=self._plan.retried)
        phases.note_latencies(self._measured, "retry_lateness", retried.late_ms)
        watching.cancel()
        for when, memory in (("rest", rest), ("load", load)):
            for service, mib in memory.most.items():
                self._measured.figure(f"memory_{service}_{when}_mib", mib)

    async def _round(self) -> None:
        measured, plan, world = self._measured, self._plan, self._world
        await self._client()
        for _ in range(plan.saturated):
            found = await self._saturated("deliveries_fanout1", self._one)
            phases.note_cost(measured, "cpu_per_delivery", found.cost_us)
        await self._peers(found.per_second)
        await self._client()
        for _ in range(plan.saturated):
            await self._saturated("deliveries_fanout10", self._ten)
        await self._handler()
        measured.figure("accept", await phases.accept(world, self._none, messages=plan.accepted))
        await self._append()
        await self._hops()
        for rate in _RATES:
            await self._pace(rate)

    async def _once(self) -> None:
        """What is told and not judged."""
        measured, plan, world = self._measured, self._plan, self._world
        self._say("a consumer of outcomes, bodies of 10 and 100 KiB, one endpoint for all, and over the broker")
        await self._client()
        async with world.outcomes_heard():
            found = await self._saturated("deliveries_outcomes_heard", self._one)
        phases.note_cost(measured, "cpu_per_delivery_heard", found.cost_us)
        for name, size, count in zip(("10kib", "100kib"), (10, 100), plan.bulky, strict=True):
            found = await phases.saturate(world, self._one, deliveries=count, payload_bytes=size * _KIB)
            measured.figure(f"deliveries_{name}", found.per_second)
        found = await phases.saturate(world, self._hot, deliveries=plan.bulky[0])
        measured.figure("deliveries_one_endpoint", found.per_second)
        found = await phases.over_the_broker(world, self._one, deliveries=plan.deliveries)
        measured.figure("deliveries_broker", found.per_second)

    async def _saturated(self, figure: str, application: Application) -> Saturated:
        """Between the ceiling that was taken last and another one, whose mean it is held against."""
        before = self._measured.last("client")
        found = await phases.saturate(self._world, application, deliveries=self._plan.deliveries)
        await self._client()
        self._measured.figure(figure, found.per_second, ceiling=(before + self._measured.last("client")) / 2)
        return found

    async def _client(self) -> None:
        words = (self._world.sink.url, self._plan.ceiling_seconds, _KIB, _CONNECTIONS)
        client = await said(Client, "bench.ceilings.client", *words)
        self._measured.ceiling("client", client.per_second)
        self._measured.ceiling("client_cpu", client.cpu_us)

    async def _handler(self) -> None:
        async with listening("bench.ceilings.handler") as (url, _):
            load = Load(url=url, paths=["/api/v1/app/one/msg"], count=int(self._plan.ceiling_seconds * 5_000))
            posted = await said(Posted, "bench.load", msgspec.json.encode(load).decode())
        self._measured.ceiling("handler", posted.per_second)

    async def _append(self) -> None:
        found = await said(
            Appends, "bench.ceilings.appends", self._appends.database_url, 3 * self._plan.ceiling_seconds
        )
        self._measured.ceiling("append", found.raw)
        self._measured.figure("ledger_append", found.facts)
        self._measured.figure("ledger_append_projected", found.projected)

    async def _hops(self) -> None:
        corner = self._appends
        words = (corner.database_url, corner.amqp_url, self._plan.ceiling_seconds, _KIB)
        found = await said(Hops, "bench.ceilings.hops", *words)
        self._measured.ceiling("envelopes", found.envelopes)
        self._measured.ceiling("commits_and_hop", found.commits_and_hop_ms)

    async def _peers(self, per_second: float) -> None:
        url = self._world.sink.url
        found = await race.celery(self._appends, url, count=self._plan.celery, size=_KIB)
        self._measured.ceiling("celery", found)
        self._measured.figure("vs_celery", per_second / found)
        found = await race.gathered(self._appends, url, count=self._plan.gather, size=_KIB)
        self._measured.ceiling("gather", found)
        self._measured.figure("vs_gather", per_second / found)

    async def _pace(self, rate: int) -> None:
        measured = self._measured
        found = await phases.pace(self._world, self._one, rate=rate, seconds=self._plan.paced)
        phases.note_latencies(measured, f"latency_{rate}", found.latencies_ms)
        if rate == 50:
            hop = measured.last("commits_and_hop")
            measured.figure("latency_50_p50_over_hop", percentile(found.latencies_ms, 0.5) / hop)
        if rate == 500:
            phases.note_cost(measured, "cpu_per_delivery_500", found.cost_us)
