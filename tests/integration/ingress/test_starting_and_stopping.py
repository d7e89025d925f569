"""How an ingress begins, and how it ends."""

import asyncio
import json
import signal
import subprocess
import sys
import time
from typing import Any

import aiohttp
import pytest

from deploy.stack.ports import free_port
from deploy.stack.services import Service, environment
from tests.integration.ingress.stand import Stand, Tenant, cloud_event, publish, started
from tests.support.client import connected
from tests.support.patience import PATIENCE_SECONDS, eventually


def run(stand: Stand, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    replica: Service = stand.replica("refused")
    env = environment(dict(replica.settings) | {"HOST": "127.0.0.1", "PORT": str(replica.port)} | settings)
    command = [sys.executable, "-m", "services.ingress", *arguments]
    return subprocess.run(command, env=env, cwd=replica.code, capture_output=True, text=True, timeout=60, check=False)


WRONG: dict[str, dict[str, str]] = {
    "an unknown setting": {"MISTAKE": "1"},
    "an ill-typed setting": {"PORT": "eighty"},
    "a registry that is no URL": {"REGISTRY_URL": "registry"},
    "an idempotency of nothing": {"IDEMPOTENCY_HOURS": "0"},
    "a bad master key": {"MASTER_KEY": "short"},
    "no Postgres": {"DATABASE_URL": "postgresql://nobody:nothing@127.0.0.1:1/none"},
    "a wrong database URL": {"DATABASE_URL": "mysql://a"},
    "no RabbitMQ": {"AMQP_URL": "amqp://nobody:nothing@127.0.0.1:1/"},
    "a wrong AMQP URL": {"AMQP_URL": "http://127.0.0.1:1/"},
}


@pytest.mark.parametrize("name", WRONG)
async def test_what_the_operator_has_to_mend_is_one_line_and_exit_2(stand: Stand, name: str) -> None:
    ended = await asyncio.to_thread(run, stand, **WRONG[name])
    assert ended.returncode == 2
    assert len(ended.stderr.splitlines()) == 1
    assert ended.stderr.startswith("hookledger-ingress: ")


async def test_a_port_that_is_taken_is_one_line_and_exit_2(stand: Stand) -> None:
    taken = await asyncio.start_server(lambda *_: None, "127.0.0.1", free_port())
    port = taken.sockets[0].getsockname()[1]
    ended = await asyncio.to_thread(run, stand, PORT=str(port))
    taken.close()
    assert (ended.returncode, len(ended.stderr.splitlines())) == (2, 1)
    assert str(port) in ended.stderr


async def test_the_settings_are_listed(stand: Stand) -> None:
    ended = await asyncio.to_thread(run, stand, "--help")
    assert ended.returncode == 0
    for name in ("DATABASE_URL", "IDEMPOTENCY_HOURS", "REGISTRY_URL", "REQUEST_TIMEOUT_MS", "FRONT_DOOR_TIMEOUT_MS"):
        assert f"HOOKLEDGER_{name}\n" in ended.stdout


async def request_in_hand(port: int, tenant: Tenant, size: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A request with a body of so many bytes, none of which has been sent, once the replica asks for them."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    head = (
        f"POST {tenant.path} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {tenant.key}\r\n"
        f"Expect: 100-continue\r\nContent-Length: {size}\r\n\r\n"
    )
    writer.write(head.encode())
    async with asyncio.timeout(PATIENCE_SECONDS):
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    return reader, writer


async def lets_in(replica: Service) -> bool:
    """Whether somebody new could connect."""
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", replica.port)
    except OSError:
        return False
    writer.close()
    return True


async def test_requests_in_hand_are_answered_before_it_ends(stand: Stand, tenant: Tenant) -> None:
    replica = stand.replica("stopped", REQUEST_TIMEOUT_MS="60000")
    body = json.dumps({"eventType": "in-hand", "payload": {}}).encode()
    with started(replica):
        reader, writer = await request_in_hand(replica.port, tenant, len(body))
        writer.write(body[:10])
        await writer.drain()
        stopping = asyncio.create_task(asyncio.to_thread(replica.stop))
        await eventually(lambda: lets_in(replica), lambda open_: not open_, within=20)  # and not the 25 of its grace
        writer.write(body[10:])
        async with asyncio.timeout(PATIENCE_SECONDS):
            assert b" 202 " in await reader.readline()
        await stopping
        writer.close()
    assert await stand.count("message", event_type="in-hand") == 1
    assert '"event":"service.stopped"' in replica.log.read_text()


async def test_an_idle_replica_ends_at_once(stand: Stand) -> None:
    replica = stand.replica("idle")
    with started(replica):
        began = time.monotonic()
        await asyncio.to_thread(replica.stop)
        assert time.monotonic() - began < 10  # and not the 25 seconds of its grace


async def test_a_request_that_never_comes_to_an_end_does_not_hold_it_longer_than_its_grace(
    stand: Stand, tenant: Tenant
) -> None:
    replica = stand.replica("slow", REQUEST_TIMEOUT_MS="60000", STOP_GRACE_MS="500")
    with started(replica):
        _, writer = await request_in_hand(replica.port, tenant, 9)
        began = time.monotonic()
        await asyncio.to_thread(replica.stop)
        assert time.monotonic() - began < 10
        writer.close()


async def test_what_was_answered_with_202_while_it_stopped_is_there(stand: Stand, tenant: Tenant, channel: Any) -> None:
    replica = stand.replica("busy")
    accepted: list[str] = []

    async def send(client: Any) -> None:
        while True:
            try:
                answer = await client.request("POST", tenant.path, json={"eventType": "busy", "payload": {}})
            except (aiohttp.ClientError, OSError):
                return
            if answer.status == 202:
                accepted.append(answer.json["id"])

    with started(replica):
        for n in range(200):
            await publish(channel, stand, cloud_event(tenant, f"busy-{n}", type="busy-broker"))
        async with connected(replica.url, tenant.key) as client:
            sending = [asyncio.create_task(send(client)) for _ in range(20)]
            async with asyncio.timeout(PATIENCE_SECONDS):
                while not accepted:  # noqa: ASYNC110  filled by the senders
                    await asyncio.sleep(0.01)
            await asyncio.to_thread(replica.stop)
            await asyncio.gather(*sending)
    assert len(set(accepted)) == len(accepted) > 0
    assert await stand.count("message", event_type="busy") == len(accepted)
    with started(stand.replica("after")):
        await stand.until(200, "message", event_type="busy-broker")


async def test_a_second_signal_ends_it_at_once(stand: Stand, tenant: Tenant) -> None:
    replica = stand.replica("impatient", REQUEST_TIMEOUT_MS="60000")
    env = environment(dict(replica.settings) | {"HOST": "127.0.0.1", "PORT": str(replica.port)})
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "services.ingress", env=env, cwd=replica.code, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    async with asyncio.timeout(2 * PATIENCE_SECONDS):
        await eventually(lambda: lets_in(replica), lambda open_: open_)
        _, writer = await request_in_hand(replica.port, tenant, 9)
        process.send_signal(signal.SIGTERM)
        while b"service.stopping" not in await process.stdout.readline():
            pass
        process.send_signal(signal.SIGTERM)
        assert await process.wait() == 130
    writer.close()
