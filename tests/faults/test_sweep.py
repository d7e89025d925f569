"""Whatever a process was about to do when it died, another does within seconds; and the broker's data is not needed."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path

import pytest

from deploy.stack.servers import Servers
from deploy.stack.services import Service
from libs.common.domain.delivery import Status, fold
from libs.common.domain.facts import AttemptEnded, AttemptOutcomeUnknown
from libs.common.domain.ids import Prefix, encode
from libs.common.runtime.failpoints import Failpoint
from tests.support.client import Answer, Client, connected
from tests.support.failpoints import Failpoints
from tests.support.invariants import Stream, broken, disagreements, read_deliveries
from tests.support.platform import Platform
from tests.support.receiver import Receiver
from tests.support.traffic import insist, seen_by

WITHIN_SECONDS = 10.0
FLAKY = [503, 200] * 1000  # so that there are retries to claim
SCHEDULE = [0.05] * 20  # so long that no delivery meets nothing but the failures of all
IN_THE_BROKER = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class Left:
    """What the dead left behind, as the records tell afterwards."""

    unpublished: int
    begun_and_not_sent: int
    sent_and_not_recorded: int


def nothing(_left: Left) -> bool:
    """A transaction that was rolled back leaves no trace."""
    return True


@dataclass(frozen=True, slots=True, kw_only=True)
class Death:
    """Where a service is killed, and whether there was left what is to be continued."""

    service: str
    point: Failpoint
    was_left: Callable[[Left], object]


@pytest.mark.parametrize("death", [
    pytest.param(
        Death(service="ingress", point=Failpoint.ACCEPT_COMMITTED, was_left=lambda left: left.unpublished),
        id="committed but not published"),
    pytest.param(
        Death(service="dispatcher", point=Failpoint.FAN_OUT_IN_TRANSACTION, was_left=nothing),
        id="published but not fanned out"),
    pytest.param(
        Death(service="dispatcher", point=Failpoint.FAN_OUT_COMMITTED, was_left=lambda left: left.begun_and_not_sent),
        id="fanned out but not sent"),
    pytest.param(
        Death(service="dispatcher", point=Failpoint.CLAIM_COMMITTED, was_left=lambda left: left.begun_and_not_sent),
        id="claimed but not begun"),
    pytest.param(
        Death(service="dispatcher", point=Failpoint.ATTEMPT_SENT, was_left=lambda left: left.sent_and_not_recorded),
        id="sent but not recorded"),
])  # fmt: skip
async def test_what_a_dead_process_left_is_continued_by_a_living_one(
    platform: Platform, client: Client, receiver: Receiver, tmp_path: Path, death: Death
) -> None:
    app = await client.create_application()
    endpoint = await client.create_endpoint(app, receiver.script("/", *FLAKY), retrySchedule=SCHEDULE)
    failpoints = Failpoints(tmp_path / "failpoints")
    swept = platform.log("dispatcher").count("sweep.overdue")
    enough = asyncio.Event()

    async with beside(platform, death.service, failpoints) as victim, connected(victim.url, client.key) as door:
        doors = [door, client] if death.service == "ingress" else [client]
        failpoints.arm(death.point)
        sending = asyncio.create_task(keep_sending(app, doors, enough))
        await failpoints.hit(death.point)
        died_at = asyncio.get_running_loop().time()
        enough.set()
        sent = await sending
        await client.settled(app, len(sent), within=WITHIN_SECONDS)
        print(f"{death.point}: continued within {asyncio.get_running_loop().time() - died_at:.1f} s")
        assert victim.pid is None, "it was killed"

    streams = await deliveries_of(platform, app)
    assert sorted(encode(Prefix.MESSAGE, fold(stream).message) for stream in streams) == sorted(sent)
    assert {fold(stream).status for stream in streams} == {Status.SUCCEEDED}
    assert list(broken(streams, schedule=len(SCHEDULE))) == []
    assert list(disagreements(streams, seen_by(receiver), {endpoint.id: "/"})) == []
    unknown = sum(isinstance(fact, AttemptOutcomeUnknown) for stream in streams for fact in stream)
    sends = sum(fact.sends for stream in streams for fact in stream if isinstance(fact, AttemptEnded))
    unrecorded = len(receiver.requests) - sends
    assert death.was_left(
        Left(
            unpublished=platform.log("dispatcher").count("sweep.overdue") - swept,
            begun_and_not_sent=unknown - unrecorded,
            sent_and_not_recorded=unrecorded,
        )
    )


async def test_a_broker_that_loses_all_its_data_loses_no_message(
    servers: Servers, platform: Platform, client: Client, receiver: Receiver
) -> None:
    if not servers.owned_broker:
        pytest.skip("the broker was given by a URL: it is not ours to wipe")
    app = await client.create_application()
    endpoint = await client.create_endpoint(app, receiver.url())
    await platform.stop("dispatcher")
    sent = await asyncio.gather(*(client.send(app, "ping", {"n": number}) for number in range(IN_THE_BROKER)))

    def wipe() -> None:
        servers.broker.kill()
        servers.broker.wipe()
        servers.broker.start()

    await asyncio.to_thread(wipe)
    await platform.start("dispatcher")
    started_at = asyncio.get_running_loop().time()
    await client.settled(app, len(sent), within=WITHIN_SECONDS)
    print(f"wiped broker: delivered within {asyncio.get_running_loop().time() - started_at:.1f} s of the start")
    assert sorted(request.id for request in receiver.requests) == sorted(sent)
    streams = await deliveries_of(platform, app)
    assert list(broken(streams, schedule=2)) == []
    assert list(disagreements(streams, seen_by(receiver), {endpoint.id: "/"})) == []


@asynccontextmanager
async def beside(platform: Platform, name: str, failpoints: Failpoints) -> AsyncIterator[Service]:
    """Another replica of a service, which alone has these failpoints."""
    registry = platform.services["registry"] if name == "ingress" else None
    replica = platform.installation.service(
        name, replica=secrets.token_hex(2), registry=registry, settings=failpoints.settings
    )

    def start() -> None:
        replica.start()
        replica.wait_ready()

    try:
        await asyncio.to_thread(start)
        yield replica
    finally:
        await asyncio.to_thread(replica.stop)


async def keep_sending(app: str, doors: list[Client], enough: asyncio.Event) -> list[str]:
    """Send one message after the other, each until some door has taken it; their ids."""
    turns = cycle(doors)
    sent: list[str] = []

    async def post() -> Answer:
        return await next(turns).request(
            "POST",
            f"/api/v1/app/{app}/msg",
            json={"eventType": "ping", "payload": {"n": len(sent)}},
            headers={"Idempotency-Key": f"message-{len(sent)}"},
        )

    while not enough.is_set():
        sent.append((await insist(post)).json["id"])
    return sent


async def deliveries_of(platform: Platform, app: str) -> list[Stream]:
    streams = await read_deliveries(platform.corner.database_url)
    return [stream for stream in streams.values() if encode(Prefix.APPLICATION, fold(stream).app) == app]
