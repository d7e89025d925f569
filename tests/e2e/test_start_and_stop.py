"""How the services start, what they refuse to start with, and how they stop."""

import asyncio
import re
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from deploy.stack.ports import free_port
from deploy.stack.services import environment
from libs.common.runtime.settings import PREFIX
from tests.support.client import Client, connected
from tests.support.patience import eventually
from tests.support.platform import Platform
from tests.support.receiver import Receiver, Reply

CHECKOUT = Path(__file__).parents[2]
SERVICES = ("registry", "ingress", "dispatcher")
EACH = pytest.mark.parametrize("service", SERVICES)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How a program ended."""

    code: int | None
    out: str
    err: str


async def run(service: str, settings: dict[str, str], *arguments: str) -> Ended:
    """Run a service that is expected to end by itself."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", f"services.{service}", *arguments),
        env=environment(settings),
        cwd=CHECKOUT,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(40):
            out, err = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
    return Ended(code=process.returncode, out=out.decode(), err=err.decode())


def settings_of(platform: Platform, service: str, **changed: str | None) -> dict[str, str]:
    """The settings of a running service, on another port and with these changes; None takes one away."""
    own: dict[str, str | None] = dict(platform.services[service].settings)
    own |= {"HOST": "127.0.0.1", "PORT": str(free_port()), **changed}
    return {name: value for name, value in own.items() if value is not None}


def refused(ended: Ended) -> str:
    """The one line with which a service refused to start."""
    assert ended.code == 2, ended
    lines = ended.err.splitlines()
    assert len(lines) == 1, ended.err
    assert "Traceback" not in ended.out
    return lines[0]


# Settings


@EACH
async def test_help_lists_the_settings(service: str) -> None:
    ended = await run(service, {}, "--help")
    assert ended.code == 0
    assert ended.out.startswith(f"usage: hookledger-{service}\n")
    for name in ("DATABASE_URL", "AMQP_URL", "MASTER_KEY", "PORT"):
        assert f"{PREFIX}{name}\n" in ended.out


@EACH
async def test_an_unknown_argument_is_refused(service: str) -> None:
    assert "--port" in refused(await run(service, {}, "--port", "80"))


@EACH
@pytest.mark.parametrize(
    ("name", "value"),
    [
        pytest.param("DATABSE_URL", "postgresql://localhost/x", id="unknown"),
        pytest.param("PORT", "eighty", id="no number"),
        pytest.param("PORT", "70000", id="no port"),
        pytest.param("LOG_LEVEL", "loud", id="no level"),
        pytest.param("AMQP_PREFIX", "a b", id="no prefix"),
        pytest.param("MASTER_KEY", "secret", id="no key"),
        pytest.param("MASTER_KEY", None, id="missing"),
        pytest.param("DATABASE_URL", None, id="no database"),
        pytest.param("DATABASE_URL", "mysql://localhost/x", id="another database"),
        pytest.param("AMQP_URL", "http://localhost/", id="another broker"),
        pytest.param("AMQP_URL", "nonsense", id="no URL"),
    ],
)
async def test_a_setting_that_cannot_be_used_is_refused_in_one_line_that_names_it(
    platform: Platform, service: str, name: str, value: str | None
) -> None:
    line = refused(await run(service, settings_of(platform, service, **{name: value})))
    assert line.startswith(f"hookledger-{service}: ")
    assert f"{PREFIX}{name}" in line
    assert value is None or name != "MASTER_KEY" or f"{value!r}" not in line


# Servers


@EACH
async def test_an_unreachable_database_is_named_in_one_line(platform: Platform, service: str) -> None:
    url = f"postgresql://hookledger:secret-word@127.0.0.1:{free_port()}/hookledger"
    line = refused(await run(service, settings_of(platform, service, DATABASE_URL=url)))
    assert "Postgres" in line
    assert "HOOKLEDGER_DATABASE_URL" in line
    assert "secret-word" not in line


@EACH
async def test_a_wrong_password_is_told_in_one_line(platform: Platform, service: str) -> None:
    url = re.sub(r"//([^:]+):[^@]+@", r"//\1:wrong-word@", platform.corner.database_url)
    line = refused(await run(service, settings_of(platform, service, DATABASE_URL=url)))
    assert "Postgres" in line
    assert "wrong-word" not in line


@EACH
async def test_a_database_that_is_not_migrated_is_told_in_one_line(platform: Platform, service: str) -> None:
    url = re.sub(r"/[^/]+$", "/postgres", platform.corner.database_url)
    line = refused(await run(service, settings_of(platform, service, DATABASE_URL=url)))
    assert "hookledger migrate" in line


@pytest.mark.parametrize("service", ["registry", "ingress"])
async def test_an_unreachable_broker_is_named_in_one_line(platform: Platform, service: str) -> None:
    url = f"amqp://hookledger:secret-word@127.0.0.1:{free_port()}/"
    line = refused(await run(service, settings_of(platform, service, AMQP_URL=url)))
    assert "RabbitMQ" in line
    assert "HOOKLEDGER_AMQP_URL" in line
    assert "secret-word" not in line


@EACH
async def test_a_broker_that_refuses_the_user_is_told_in_one_line(platform: Platform, service: str) -> None:
    url = re.sub(r"//([^:]+):[^@]+@", r"//\1:wrong-word@", platform.corner.amqp_url)
    line = refused(await run(service, settings_of(platform, service, AMQP_URL=url)))
    assert "RabbitMQ refuses the user" in line


@EACH
async def test_a_port_that_is_taken_is_named_in_one_line(platform: Platform, service: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        line = refused(await run(service, settings_of(platform, service, PORT=port)))
    assert port in line


async def test_a_dispatcher_delivers_without_a_broker(platform: Platform, client: Client, receiver: Receiver) -> None:
    app = await client.create_application()
    await client.create_endpoint(app, receiver.url())
    await platform.stop("dispatcher")
    unreachable = f"amqp://hookledger:x@127.0.0.1:{free_port()}/"
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "services.dispatcher"),
        env=environment(settings_of(platform, "dispatcher", AMQP_URL=unreachable)),
        cwd=CHECKOUT,
        stdout=asyncio.subprocess.DEVNULL,
    )
    try:
        await client.send(app, "ping", {})
        await receiver.wait_for(1)
    finally:
        process.terminate()
        await process.wait()
        await platform.start("dispatcher")
    assert process.returncode == 0


# Health


@EACH
async def test_a_running_service_is_alive_ready_and_measured(platform: Platform, service: str) -> None:
    async with connected(platform.services[service].url, platform.key) as asking:
        assert (await asking.request("GET", "/healthz")).status == 200
        ready = await asking.request("GET", "/readyz")
        assert (ready.status, ready.json["status"]) == (200, "ready")
        metrics = await asking.request("GET", "/metrics")
    assert metrics.status == 200
    assert b"# TYPE" in metrics.body


async def test_a_request_keeps_its_id_through_the_front_door(client: Client) -> None:
    for path in ("/healthz", "/api/v1/app", "/api/v1/app/app_x/msg"):
        answer = await client.request("GET", path, headers={"X-Request-Id": "mine-7"})
        assert answer.headers.getall("X-Request-Id") == ["mine-7"], path


async def test_a_registry_that_is_down_is_a_502_in_the_apis_form(platform: Platform, client: Client) -> None:
    await platform.kill("registry")
    try:
        answer = await client.request("GET", "/api/v1/app", headers={"Authorization": f"Bearer {platform.key}"})
        assert answer.status in {502, 503}
        assert set(answer.json) == {"code", "detail"}
    finally:
        await platform.start("registry")
    assert await client.get("/app")


# Stopping


@EACH
async def test_sigterm_ends_a_service_with_0(platform: Platform, service: str) -> None:
    async with running(platform, service) as process:
        process.send(signal.SIGTERM)
        async with asyncio.timeout(15):
            await process.says("service.stopped")
            assert await process.ends() == 0


@EACH
async def test_work_that_does_not_end_holds_a_stop_no_longer_than_its_grace(
    platform: Platform, client: Client, receiver: Receiver, service: str
) -> None:
    async with (
        running(platform, service, STOP_GRACE_MS="500") as process,
        busy(process, platform, client, receiver),
        asyncio.timeout(10),
    ):
        process.send(signal.SIGTERM)
        assert await process.ends() == 0


@EACH
async def test_a_second_signal_ends_a_service_at_once(
    platform: Platform, client: Client, receiver: Receiver, service: str
) -> None:
    async with running(platform, service) as process, busy(process, platform, client, receiver):
        process.send(signal.SIGTERM)
        await process.says("service.stopping")
        process.send(signal.SIGTERM)
        async with asyncio.timeout(10):  # and not the 25 seconds of its grace
            assert await process.ends() == 130


async def test_a_stopping_dispatcher_lets_its_attempts_end(
    platform: Platform, client: Client, receiver: Receiver
) -> None:
    app = await client.create_application()
    await client.create_endpoint(app, receiver.script("/", Reply(delay=1.0)))
    await client.send(app, "ping", {})
    await receiver.wait_for(1)
    await platform.stop("dispatcher")
    [delivery] = await client.deliveries(app)
    assert (delivery["status"], delivery["attempts"]) == ("succeeded", 1)
    assert len(receiver.requests) == 1
    await platform.start("dispatcher")


async def test_what_is_accepted_while_a_dispatcher_stops_is_delivered_by_the_next(
    platform: Platform, client: Client, receiver: Receiver
) -> None:
    app = await client.create_application()
    await client.create_endpoint(app, receiver.url())
    stopping = asyncio.create_task(platform.stop("dispatcher"))
    sent = [await client.send(app, "ping", {"n": number}) for number in range(50)]
    await stopping
    await platform.start("dispatcher")
    deliveries = await client.settled(app, len(sent))
    assert {delivery["status"] for delivery in deliveries} == {"succeeded"}
    assert sorted(request.id for request in receiver.requests) == sorted(sent)


async def test_a_stopping_ingress_answers_what_it_has_in_hand(
    platform: Platform, client: Client, receiver: Receiver
) -> None:
    app = await client.create_application()
    await client.create_endpoint(app, receiver.url())
    document = {"eventType": "ping", "payload": {}}
    sending = [asyncio.create_task(client.request("POST", f"/api/v1/app/{app}/msg", json=document)) for _ in range(50)]
    await asyncio.wait(sending, return_when=asyncio.FIRST_COMPLETED)
    await platform.stop("ingress")
    answers = await asyncio.gather(*sending, return_exceptions=True)
    await platform.start("ingress")
    accepted = [
        answer.json["id"] for answer in answers if not isinstance(answer, BaseException) and answer.status == 202
    ]
    assert accepted
    await receiver.wait_for(len(accepted))
    assert set(accepted) <= {request.id for request in receiver.requests}


async def test_a_stopping_registry_answers_what_it_has_in_hand(
    platform: Platform, client: Client, receiver: Receiver
) -> None:
    app = await client.create_application()
    document = {"url": receiver.url()}
    async with connected(platform.registry_url, client.key) as registry:
        creating = [
            asyncio.create_task(registry.request("POST", f"/api/v1/app/{app}/endpoint", json=document))
            for _ in range(30)
        ]
        await asyncio.wait(creating, return_when=asyncio.FIRST_COMPLETED)
        await platform.stop("registry")
        answers = await asyncio.gather(*creating, return_exceptions=True)
    await platform.start("registry")
    created = [answer.json["id"] for answer in answers if not isinstance(answer, BaseException)]
    assert created
    await client.send(app, "ping", {})
    kept = [endpoint["id"] for endpoint in (await client.get(f"/app/{app}/endpoint"))["data"]]
    assert set(created) <= set(kept)
    await receiver.wait_for(len(kept))


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """A service that runs as a child of the test's own, so that its exit code can be seen."""

    service: str
    process: asyncio.subprocess.Process
    port: int

    def send(self, number: signal.Signals) -> None:
        """Send a signal."""
        self.process.send_signal(number)

    async def says(self, event: str) -> None:
        """Return when its log has a line of that event."""
        assert self.process.stdout is not None
        while line := await self.process.stdout.readline():
            if f'"{event}"'.encode() in line:
                return
        raise AssertionError(f"{self.service} ended without {event}")

    async def ends(self) -> int:
        """Its exit code."""
        await self.process.communicate()
        assert self.process.returncode is not None
        return self.process.returncode


@asynccontextmanager
async def running(platform: Platform, service: str, **changed: str) -> AsyncIterator[Running]:
    """Another replica of a service, ready."""
    settings = settings_of(platform, service, **changed)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", f"services.{service}"),
        env=environment(settings),
        cwd=CHECKOUT,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        async with connected(f"http://127.0.0.1:{settings['PORT']}", platform.key) as asking:
            await eventually(lambda: _ready(asking), bool)
        yield Running(service=service, process=process, port=int(settings["PORT"]))
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


@asynccontextmanager
async def busy(running: Running, platform: Platform, client: Client, receiver: Receiver) -> AsyncIterator[None]:
    """The service has something in hand that does not end: a delivery without an answer, or a request without an end."""
    app = await client.create_application()
    if running.service == "dispatcher":
        await platform.stop("dispatcher")  # so that there is no other to take the delivery
        try:
            await client.create_endpoint(app, receiver.script("/", Reply(hang=True)), timeoutMs=30_000)
            await client.send(app, "ping", {})
            await receiver.wait_for(1)
            yield
        finally:
            await platform.start("dispatcher")
        return
    path = f"/api/v1/app/{app}/" + {"ingress": "msg", "registry": "endpoint"}[running.service]
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {client.key}\r\nExpect: 100-continue\r\n"
    reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
    try:
        writer.write(f"{head}Content-Type: application/json\r\nContent-Length: 100\r\n\r\n".encode())
        assert (await reader.readline()).startswith(b"HTTP/1.1 100 "), "it waits for the body"
        yield
    finally:
        writer.close()


async def _ready(asking: Client) -> bool:
    try:
        return (await asking.request("GET", "/readyz")).status == 200
    except OSError:
        return False
