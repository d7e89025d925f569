"""Servers in containers, as test runs have them where a Docker daemon answers. Here one answers that is not Docker."""

import asyncio
import tempfile
from collections.abc import Iterator
from pathlib import Path

import aio_pika
import asyncpg
import pytest

from deploy.stack import servers as finding
from deploy.stack.ports import is_listening
from deploy.stack.postgres import EmbeddedPostgres
from deploy.stack.server import Server
from deploy.stack.servers import Servers
from tests.support.containers import Testcontainers
from tests.support.docker_engine import DockerEngine, docker_engine


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Iterator[DockerEngine]:
    """A daemon, and an environment that leads to it and names no servers."""
    monkeypatch.delenv("HOOKLEDGER_DATABASE_URL", raising=False)
    monkeypatch.delenv("HOOKLEDGER_AMQP_URL", raising=False)
    with tempfile.TemporaryDirectory(prefix="docker") as folder, docker_engine(Path(folder)) as listening:
        monkeypatch.setenv("DOCKER_HOST", f"unix://{listening.socket}")
        yield listening


async def test_where_a_daemon_answers_the_servers_are_containers_that_outlive_a_kill(
    engine: DockerEngine, tmp_path: Path
) -> None:
    folder = tmp_path / "state"
    found = await asyncio.to_thread(Servers.start, folder, engine=Testcontainers())
    assert found.postgres.title.startswith("postgres (docker, postgres:17.6-alpine3.22) on 127.0.0.1:")
    assert found.broker.title.startswith("rabbitmq (docker, rabbitmq:4.1) on 127.0.0.1:")
    assert found.owned_postgres
    assert found.owned_broker
    assert engine.pulled == {"postgres:17.6-alpine3.22", "rabbitmq:4.1"}

    # What is kept outlives a kill, on the same URLs.
    urls = found.database_url, found.amqp_url
    await keep(found)
    both = found.postgres, found.broker
    await asyncio.gather(*(asyncio.to_thread(server.kill) for server in both))
    assert not any(answers(server) for server in both)
    await asyncio.gather(*(asyncio.to_thread(server.start) for server in both))
    assert (found.database_url, found.amqp_url) == urls
    assert await kept(found) == (7, 1)

    # A wipe leaves the URL alone.
    await asyncio.to_thread(found.postgres.stop)
    await asyncio.to_thread(found.postgres.wipe)
    assert [contained.spec["Image"] for contained in engine.containers.values()] == ["rabbitmq:4.1"]
    await asyncio.to_thread(found.postgres.start)
    assert (found.database_url, found.amqp_url) == urls
    assert await kept(found) == (None, 1)

    # Another process stops and removes what this one left, by its name.
    await asyncio.to_thread(finding.stop_servers, folder, wipe=True, engine=Testcontainers())
    assert not engine.containers


def test_urls_in_the_environment_come_before_a_daemon(
    engine: DockerEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, servers: Servers
) -> None:
    monkeypatch.setenv("HOOKLEDGER_DATABASE_URL", servers.database_url)
    monkeypatch.setenv("HOOKLEDGER_AMQP_URL", servers.amqp_url)
    found = Servers.start(tmp_path / "state", engine=Testcontainers())
    assert (found.database_url, found.amqp_url) == (servers.database_url, servers.amqp_url)
    assert not found.owned_postgres
    assert not engine.asked


def test_a_daemon_that_refuses_comes_before_an_embedded_server(engine: DockerEngine, tmp_path: Path) -> None:
    engine.refusal = "no space left on device"
    said: list[str] = []
    found = finding.find_postgres(tmp_path / "state", said.append, Testcontainers())
    found.stop()
    assert isinstance(found, EmbeddedPostgres)
    assert "no space left on device" in said[0]
    assert said[0].endswith("going on without Docker")


def test_a_daemon_that_does_not_answer_or_is_elsewhere_is_none(
    engine: DockerEngine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert Testcontainers().answers()
    for elsewhere in ("ssh://elsewhere", "tcp://10.0.0.1:2375", f"unix://{tmp_path}/docker.sock"):
        monkeypatch.setenv("DOCKER_HOST", elsewhere)
        assert not Testcontainers().answers()


async def keep(found: Servers) -> None:
    """A row, and a message in a durable queue."""
    database = await asyncpg.connect(found.database_url)
    await database.execute("CREATE TABLE kept AS SELECT 7 AS number")
    await database.close()
    async with await aio_pika.connect(found.amqp_url) as connection:
        channel = await connection.channel()
        queue = await channel.declare_queue("kept", durable=True)
        message = aio_pika.Message(b"7", delivery_mode=aio_pika.DeliveryMode.PERSISTENT)
        await channel.default_exchange.publish(message, queue.name)


async def kept(found: Servers) -> tuple[object, int | None]:
    """The row, and how many messages."""
    database = await asyncpg.connect(found.database_url)
    there = await database.fetchval("SELECT to_regclass('kept')")
    row = await database.fetchval("SELECT number FROM kept") if there else None
    await database.close()
    async with await aio_pika.connect(found.amqp_url) as connection:
        channel = await connection.channel()
        queue = await channel.declare_queue("kept", durable=True)
        return row, queue.declaration_result.message_count


def answers(server: Server) -> bool:
    host, _, port = server.title.rpartition(" ")[2].partition(":")
    return is_listening(host, int(port))
