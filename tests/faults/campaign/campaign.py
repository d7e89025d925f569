"""Round after round: load, faults, peace, verdict."""

import asyncio
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlsplit
from uuid import UUID

import asyncpg
import orjson
from aio_pika.abc import AbstractChannel, AbstractIncomingMessage

from deploy.stack.errors import StackError
from deploy.stack.installation import master_key
from deploy.stack.rabbitmq import LocalRabbitMQ
from deploy.stack.servers import Servers
from libs.common.domain.delivery import fold
from libs.common.domain.facts import AttemptOutcomeUnknown, AttemptStarted, DeliveryFact
from libs.common.domain.ids import Prefix, decode, encode
from libs.common.postgres.ledger import appended
from libs.common.runtime.waiting import set_within
from tests.faults.campaign.broker import POISON
from tests.faults.campaign.errors import FaultFailedError
from tests.faults.campaign.faults import inject
from tests.faults.campaign.judgement import Records, Stored, duplicates, judge, orderly
from tests.faults.campaign.load import Load, senders
from tests.faults.campaign.plan import RECEIVERS, REPLICAS, Fault, Kind, Round
from tests.faults.campaign.told import CANARY, Told
from tests.faults.campaign.world import World
from tests.support.invariants import Stream
from tests.support.senders import STRIPE_SECRET

SETTLE_SECONDS: Final = 40.0
SETTLE_OVERLOAD_SECONDS: Final = 240.0
TELL_SECONDS: Final = 10.0
"""After so long without another outcome those that are missing do not come."""
MOST_SAID: Final = 12

Say = Callable[[str], None]

_OWNED_POSTGRES: Final = {Kind.POSTGRES_KILL, Kind.POSTGRES_IMMEDIATE}
_OWNED_BROKER: Final = {Kind.BROKER_RESTART, Kind.BROKER_KILL, Kind.BROKER_WIPE}
_CONTROLLED_BROKER: Final = {Kind.BROKER_ALARM, Kind.BROKER_DROPS}
_LOSES_MESSAGES: Final = {Kind.BROKER_WIPE}


def possible(servers: Servers, kinds: Sequence[Kind], say: Say) -> list[Kind]:
    """The kinds of fault that can be done to these servers; says which are left out."""
    out = set() if servers.owned_postgres else set(_OWNED_POSTGRES)
    out |= set() if servers.owned_broker else _OWNED_BROKER
    out |= set() if isinstance(servers.broker, LocalRabbitMQ) else _CONTROLLED_BROKER
    if out & set(kinds):
        say(f"left out, since the servers are not ours: {', '.join(sorted(out & set(kinds)))}")
    return [kind for kind in kinds if kind not in out]


@dataclass(slots=True, kw_only=True)
class Summary:
    """What was done, what came of it."""

    rounds: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    missed: Counter[str] = field(default_factory=Counter)
    behaviours: Counter[str] = field(default_factory=Counter)
    messages: int = 0
    attempts: int = 0
    unknown: int = 0
    refused: int = 0
    duplicates: int = 0
    settled: list[float] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)

    def lines(self) -> list[str]:
        """The closing lines; the last one is for machines."""
        width = max((len(name) for name in (*self.faults, *self.behaviours)), default=0)
        table = [f"faults:   {name:{width}}  {count}" for name, count in sorted(self.faults.items())]
        table += [f"faults:   receivers: {name}  {count} rounds" for name, count in sorted(self.behaviours.items())]
        table = table or ["faults:   none"]
        missed = ", ".join(f"{name} ({count})" for name, count in sorted(self.missed.items()))
        settled = sorted(self.settled) or [0.0]
        middle, longest = settled[len(settled) // 2], settled[-1]
        closing = (
            f"rounds {self.rounds}, faults {self.faults.total()}, messages {self.messages}, attempts {self.attempts},"
            f" violations {len(self.violations)}"
        )
        return [
            "faults: injected, by kind:",
            *table,
            *([f"faults: did not come about: {missed}"] if missed else []),
            f"faults: duplicates that receivers saw: {self.duplicates} ({self.unknown} attempts of unknown outcome)",
            f"faults: answers that asked to come again: {self.refused}",
            f"faults: settled after the last mend in {middle:.1f} s (median), {longest:.1f} s (longest)",
            closing,
        ]


class Campaign:
    """A run of rounds against one platform."""

    def __init__(self, world: World, say: Say, *, settle_seconds: float = SETTLE_SECONDS) -> None:
        self._world = world
        self._say = say
        self._settle_seconds = settle_seconds
        self._summary = Summary()
        self._secrets = {world.key, STRIPE_SECRET, master_key(world.installation.folder)} | {
            urlsplit(url).password or CANARY for url in (world.corner.database_url, world.corner.amqp_url)
        }

    async def run(self, rounds: Sequence[Round]) -> Summary:
        """All rounds; the first one with a violation is the last one."""
        for round_ in rounds:
            violations = await self._round(round_, len(rounds))
            self._summary.rounds += 1
            self._summary.violations += violations
            if violations:
                break
        leaks = self._leaks()
        for text in leaks:
            self._say(f"faults:   {text}")
        self._summary.violations += leaks
        return self._summary

    async def _round(self, round_: Round, of: int) -> list[str]:
        world, summary = self._world, self._summary
        faults = ", ".join(map(str, round_.faults))
        self._say(f"faults: round {round_.number}/{of}  {faults}; receivers {', '.join(round_.behaviours)}")
        async with senders(world) as (clients, producer):
            load = Load(world, round_, clients, producer)
            await load.register()
            await self._listen()
            self._secrets |= load.told.secrets
            failures: list[str] = []
            async with asyncio.TaskGroup() as group:
                group.create_task(load.run())
                for fault in round_.faults:
                    group.create_task(self._inject(fault, failures))
        await world.mend()
        mended = time.monotonic()
        wiped = any(fault.kind in _LOSES_MESSAGES for fault in round_.faults)
        await self._settle(load.told, round_, wiped=wiped)
        summary.settled.append(time.monotonic() - mended)
        world.look_for_deserters(*REPLICAS)
        ended = [f"{name} ended by itself" for name in world.deserted]
        world.deserted.clear()
        records = await self._records(load.told, round_, wiped=wiped)
        violations = [*failures, *ended, *judge(records), *await self._verified()]
        if all(fault.kind is Kind.ROLL for fault in round_.faults):
            violations += orderly(records)
        if not wiped:
            violations += await self._told(records)
        if any(fault.kind is Kind.POISON for fault in round_.faults) and not wiped:
            violations += await self._parked()
        self._count(records, round_)
        self._say(
            f"faults: round {round_.number}/{of}  {len(records.stored)} messages, {len(records.streams)} deliveries,"
            f" settled in {summary.settled[-1]:.1f} s, {len(violations)} violations"
        )
        for text in violations[:MOST_SAID]:
            self._say(f"faults:   {text}")
        return violations

    async def _inject(self, fault: Fault, failures: list[str]) -> None:
        await asyncio.sleep(fault.at)
        try:
            happened = await inject(self._world, fault)
        except (FaultFailedError, StackError, TimeoutError) as error:
            failures.append(f"{fault}: {error or 'took too long'}")
            happened = True
        name = f"{fault.kind}{f' {fault.point}' if fault.point else ''}"
        (self._summary.faults if happened else self._summary.missed)[name] += 1

    async def _settle(self, told: Told, round_: Round, *, wiped: bool) -> None:
        """Wait until all is over, or until it should have been."""
        overload = any(fault.kind is Kind.OVERLOAD for fault in round_.faults)
        deadline = time.monotonic() + (SETTLE_OVERLOAD_SECONDS if overload else self._settle_seconds)
        wanted = sum(sent.insisted and not (wiped and sent.way == "broker") for sent in told.sent.values())
        app = decode(Prefix.APPLICATION, told.app)

        async def settled(connection: "asyncpg.Connection[asyncpg.Record]") -> bool:
            while time.monotonic() < deadline:
                row = await connection.fetchrow(
                    """
                    SELECT (SELECT count(*) FROM hookledger.outbox) AS outbox,
                        (SELECT count(*) FROM hookledger.message WHERE app = $1) AS messages,
                        (SELECT count(*) FROM projection_1.delivery_state
                         WHERE app = $1 AND status IN ('waiting', 'sending')) AS open
                    """,
                    app,
                )
                assert row is not None
                if not row["outbox"] and not row["open"] and row["messages"] >= wanted:
                    return True
                await asyncio.sleep(0.1)
            return False

        await self._world.on_postgres(settled)

    async def _records(self, told: Told, round_: Round, *, wiped: bool) -> Records:
        app = decode(Prefix.APPLICATION, told.app)

        async def read(connection: "asyncpg.Connection[asyncpg.Record]") -> Records:
            messages = await connection.fetch(
                """
                SELECT m.id, m.event_type, b.body
                FROM hookledger.message m JOIN hookledger.message_body b ON b.message = m.id WHERE m.app = $1
                """,
                app,
            )
            facts = await connection.fetch(
                """
                SELECT stream, version, app, endpoint, kind, schema, at, data
                FROM hookledger.fact WHERE app = $1 AND kind NOT LIKE 'Message%' ORDER BY stream, version
                """,
                app,
            )
            outbox = await connection.fetchval("SELECT count(*) FROM hookledger.outbox")
            prefix = f"/{round_.number}/"
            return Records(
                told=told,
                seen=[request for request in self._world.receiver.requests if request.path.startswith(prefix)],
                stored={
                    encode(Prefix.MESSAGE, row["id"]): Stored(event_type=row["event_type"], body=row["body"])
                    for row in messages
                },
                streams=_streams(facts),
                outbox=outbox,
                wiped=wiped,
                unsure_network=any(fault.target == RECEIVERS for fault in round_.faults),
            )

        return await self._world.on_postgres(read)

    async def _verified(self) -> list[str]:
        try:
            await asyncio.to_thread(self._world.installation.admin, "verify")
        except StackError as error:
            return [f"{line} (9)" for line in (str(error), *getattr(error, "__notes__", ())[:5])]
        return []

    async def _listen(self) -> None:
        """Have the outcomes of this round kept in a queue, as a team's own service would."""

        async def bind(channel: AbstractChannel) -> None:
            await channel.queue_delete(self._outcomes)
            queue = await channel.declare_queue(self._outcomes, durable=True)
            await queue.bind(self._world.names.deliveries, "delivery.#")

        await self._world.on_broker(bind)

    async def _told(self, records: Records) -> list[str]:
        """Whether every end of a delivery was told on the broker, be it more than once."""
        untold = {
            (encode(Prefix.DELIVERY, delivery), f"delivery.{fold(stream).status}")
            for delivery, stream in records.streams.items()
        }

        async def look(channel: AbstractChannel) -> None:
            queue = await channel.get_queue(self._outcomes, ensure=False)
            heard = asyncio.Event()

            async def hear(message: AbstractIncomingMessage) -> None:
                event = orjson.loads(message.body)
                untold.discard((event["subject"], event["type"]))
                heard.set()

            await queue.consume(hear, no_ack=True)
            while untold and await set_within(heard, TELL_SECONDS):
                heard.clear()
            await channel.queue_delete(self._outcomes)

        await self._world.on_broker(look)
        return [f"{kind} of {delivery} was never told on the broker" for delivery, kind in sorted(untold)]

    @property
    def _outcomes(self) -> str:
        return f"{self._world.corner.amqp_prefix}.campaign"

    async def _parked(self) -> list[str]:
        """Whether poison has gone to the dead letters, from both of the queues that it was put into."""

        async def look(channel: AbstractChannel) -> list[str]:
            queue = await channel.get_queue(self._world.names.dead, ensure=False)
            kept = []
            while (message := await queue.get(fail=False)) is not None:
                kept.append(message)
            for message in kept:
                await message.ack()
            found = sum(message.body == POISON for message in kept)
            return [] if found >= 2 else [f"{found} of 2 poisonous messages are parked"]

        return await self._world.on_broker(look)

    def _count(self, records: Records, round_: Round) -> None:
        summary = self._summary
        facts = [fact for stream in records.streams.values() for fact in stream]
        summary.messages += len(records.stored)
        summary.attempts += sum(isinstance(fact, AttemptStarted) for fact in facts)
        summary.unknown += sum(isinstance(fact, AttemptOutcomeUnknown) for fact in facts)
        summary.refused += records.told.refused
        summary.duplicates += duplicates(records.seen)
        summary.behaviours.update(str(behaviour) for behaviour in round_.behaviours)

    def _leaks(self) -> list[str]:
        """Invariant 12: no secret and no payload in any service's log."""
        found = []
        for name in REPLICAS:
            log = self._world.replicas[name].log.read_text(errors="replace")
            found += [
                f"{name} has logged a secret or a payload ({secret[:6]}…) (12)"
                for secret in self._secrets
                if secret in log
            ]
        return found


def _streams(rows: Sequence[asyncpg.Record]) -> dict[UUID, Stream]:
    streams: defaultdict[UUID, list[DeliveryFact]] = defaultdict(list)
    for item in map(appended, rows):
        assert isinstance(item.fact, DeliveryFact)
        streams[item.stream].append(item.fact)
    return dict(streams)
