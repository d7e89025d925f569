"""Listening: over HTTP each message once, whenever it commits; the command forwards them, signed, and tells of it."""

import asyncio
import base64
import re
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, TypeAlias

import asyncpg
import pytest
from standardwebhooks.webhooks import Webhook
from typer.testing import CliRunner

from deploy.stack.places import CHECKOUT
from deploy.stack.ports import free_port
from deploy.stack.services import environment
from libs.common.domain import ids
from libs.common.domain.ids import Prefix
from services.admin.commands import commands
from services.registry.waiting import MOST_WAITING
from tests.integration.registry.conftest import Registry
from tests.integration.registry.history import Place, accept
from tests.support.client import Client
from tests.support.receiver import Receiver, Reply

Sql: TypeAlias = "asyncpg.Connection[asyncpg.Record]"


@pytest.fixture
async def place(registry: Registry, api: Client) -> Place:
    return Place.of(registry.organisation, await api.create_application(name="Shop"))


def path(place: Place) -> str:
    return f"/app/{ids.encode(Prefix.APPLICATION, place.app)}/listen"


async def here(api: Client, place: Place) -> str:
    begun = await api.get(path(place))
    assert begun["data"] == []
    return str(begun["iterator"])


async def after(api: Client, place: Place, iterator: str, **asked: str) -> Any:
    return await api.get(path(place), iterator=iterator, **asked)


def told(answer: Any) -> list[str]:
    return [item["id"] for item in answer["data"]]


# Over HTTP


async def test_what_was_accepted_before_is_not_told_and_what_comes_then_is_with_its_exact_bytes(
    api: Client, place: Place, sql: Sql
) -> None:
    await accept(sql, place)
    begun = await here(api, place)
    body = b' { "a": 1.50 }\n'
    message = await accept(sql, place, body, event_type="order.paid", channels=["b", "a"], event_id="order-1")
    [item] = (await after(api, place, begun))["data"]
    assert item["id"] == ids.encode(Prefix.MESSAGE, message)
    assert (item["eventType"], item["eventId"], item["channels"]) == ("order.paid", "order-1", ["a", "b"])
    assert (base64.b64decode(item["bodyBase64"]), item["contentType"]) == (body, "application/json")


async def test_who_waits_is_answered_when_a_message_comes(api: Client, place: Place, sql: Sql) -> None:
    waiting = asyncio.create_task(after(api, place, await here(api, place)))
    await asyncio.sleep(0.1)
    assert not waiting.done()
    message = await accept(sql, place)
    assert told(await waiting) == [ids.encode(Prefix.MESSAGE, message)]


async def test_a_message_that_commits_after_a_younger_one_is_told_once_and_not_lost(
    api: Client, place: Place, sql: Sql, database: str
) -> None:
    begun = await here(api, place)
    slow = await asyncpg.connect(database)
    try:
        async with slow.transaction():
            older = await accept(slow, place)
            younger = await accept(sql, place)
            waiting = asyncio.create_task(after(api, place, begun))
            await asyncio.sleep(0.7)  # it has looked once again
        await waiting
        first, second = waiting.result(), await after(api, place, begun)
    finally:
        await slow.close()
    assert set(told(first)) <= set(told(second)) == {ids.encode(Prefix.MESSAGE, each) for each in (older, younger)}
    if len(told(first)) == 1:
        assert told(first) + told(await after(api, place, first["iterator"])) == told(second)


async def test_each_message_has_an_iterator_and_pages_follow_one_another(api: Client, place: Place, sql: Sql) -> None:
    begun = await here(api, place)
    expected = [ids.encode(Prefix.MESSAGE, await accept(sql, place)) for _ in range(5)]
    first = await after(api, place, begun, limit="2")
    assert told(first) == expected[:2]
    assert first["iterator"] == first["data"][-1]["iterator"]
    assert told(await after(api, place, first["data"][0]["iterator"])) == expected[1:]
    assert told(await after(api, place, first["iterator"])) == expected[2:]


async def test_a_source_is_listened_to_alone_and_the_iterator_passes_what_others_received(
    api: Client, place: Place, sql: Sql
) -> None:
    app = ids.encode(Prefix.APPLICATION, place.app)
    source = (await api.create_source(app, "github", "secret")).id
    begun = await here(api, place)
    mine = await accept(sql, place)
    await sql.execute(
        "UPDATE hookledger.message SET source = $2 WHERE id = $1", mine, ids.decode(Prefix.SOURCE, source)
    )
    await accept(sql, place)
    answer = await after(api, place, begun, source=source)
    assert (told(answer), answer["data"][0]["sourceId"]) == ([ids.encode(Prefix.MESSAGE, mine)], source)
    assert answer["iterator"] != answer["data"][0]["iterator"]
    assert told(await after(api, place, answer["data"][0]["iterator"], limit="1")) != []


async def test_an_erased_payload_is_told_without(api: Client, place: Place, sql: Sql) -> None:
    begun = await here(api, place)
    message = await accept(sql, place)
    await sql.execute("DELETE FROM hookledger.message_body WHERE message = $1", message)
    [item] = (await after(api, place, begun))["data"]
    assert item["bodyBase64"] is None


@pytest.mark.parametrize("iterator", ["1", "1.2.3", "a.b.c.d", "-1.2.3.4", "1.99999999999999999999.1.1", "1.2.3.٤"])
async def test_what_is_no_iterator_is_refused(api: Client, place: Place, iterator: str) -> None:
    answer = await api.request("GET", f"/api/v1{path(place)}", params={"iterator": iterator})
    assert (answer.status, answer.json["detail"][0]["loc"]) == (422, ["query", "iterator"])


async def test_an_iterator_that_was_left_behind_is_refused_and_says_what_to_do(api: Client, place: Place) -> None:
    *where, born_ms = (await here(api, place)).split(".")
    for left_behind in (int(born_ms) - 3_601_000, 0):
        iterator = ".".join([*where, str(left_behind)])
        answer = await api.request("GET", f"/api/v1{path(place)}", params={"iterator": iterator})
        assert (answer.status, answer.json["detail"][0]["loc"]) == (422, ["query", "iterator"])
        assert "begin again without" in answer.json["detail"][0]["msg"]


async def test_an_iterator_comes_along_where_nothing_is_sent_and_passes_nothing_over(
    api: Client, place: Place, sql: Sql
) -> None:
    begun = await here(api, place)
    asked = [asyncio.create_task(after(api, place, begun)) for _ in range(MOST_WAITING + 1)]
    [answered], waiting = await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED)
    come_along = answered.result()
    assert come_along["data"] == []
    assert int(come_along["iterator"].rpartition(".")[2]) > int(begun.rpartition(".")[2])
    message = ids.encode(Prefix.MESSAGE, await accept(sql, place))
    assert told(await after(api, place, come_along["iterator"])) == [message]
    assert [told(answer) for answer in await asyncio.gather(*waiting)] == [[message]] * MOST_WAITING


async def test_an_unknown_source_is_not_found(api: Client, place: Place) -> None:
    answer = await api.request("GET", f"/api/v1{path(place)}", params={"source": "none"})
    assert answer.status == 404


# The command


class Listening:
    """A running `hookledger listen`."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    async def line(self) -> str:
        assert self.process.stdout is not None
        async with asyncio.timeout(30):
            return (await self.process.stdout.readline()).decode().rstrip()

    async def secret(self) -> str:
        """What it says at first: its secret."""
        assert "listening to" in await self.line()
        return (await self.line()).rpartition(" ")[2]

    async def rest(self) -> str:
        out, _ = await self.process.communicate()
        return out.decode()


@asynccontextmanager
async def listening(registry: Registry, *words: str, **settings: str) -> AsyncIterator[Listening]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "services.admin", "listen", *words),
        env=environment({"URL": registry.url, "API_KEY": registry.key} | settings),
        cwd=CHECKOUT,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        yield Listening(process)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def test_messages_are_forwarded_signed_in_order_and_told_of_also_after_the_platform_was_away(
    registry: Registry, place: Place, sql: Sql, receiver: Receiver
) -> None:
    url = receiver.script("/hooks", Reply(status=204), Reply(status=500), Reply(status=204))
    app = ids.encode(Prefix.APPLICATION, place.app)
    async with listening(registry, "--forward-to", url, "--app", app) as command:
        webhook = Webhook(await command.secret())
        sent = [await accept(sql, place, b'{"a":  1}') for _ in range(2)]
        assert re.fullmatch(r"\d\d:\d\d:\d\d  order\.completed  msg_\w{22}  204  \d+ ms", await command.line())
        assert "  500  " in await command.line()
        await asyncio.to_thread(registry.service.stop)
        sent.append(await accept(sql, place, b'{"a":  1}'))
        assert "trying again in" in await command.line()
        await asyncio.to_thread(registry.service.start)
        while "  204  " not in (line := await command.line()):
            assert "again" in line
        command.process.send_signal(signal.SIGINT)
        assert re.fullmatch(r"ended; to go on from here: --after [\d.]+\n", await command.rest())
        assert command.process.returncode == 0
    received = await receiver.wait_for(3, "/hooks")
    assert [request.id for request in received] == [ids.encode(Prefix.MESSAGE, message) for message in sent]
    for request in received:
        assert request.body == b'{"a":  1}'
        webhook.verify(request.body, dict(request.headers))


async def test_listening_goes_on_where_it_ended_and_a_server_that_is_away_is_told_of(
    registry: Registry, api: Client, place: Place, sql: Sql
) -> None:
    await api.create_source(ids.encode(Prefix.APPLICATION, place.app), "stripe", "secret")
    source = (await api.get(f"{path(place).removesuffix('/listen')}/source"))["data"][0]["id"]
    begun = await here(api, place)
    message = await accept(sql, place)
    await sql.execute(
        "UPDATE hookledger.message SET source = $2 WHERE id = $1", message, ids.decode(Prefix.SOURCE, source)
    )
    nobody = f"http://127.0.0.1:{free_port()}/"
    async with listening(registry, "--forward-to", nobody, "--source", source, "--after", begun) as command:
        await command.secret()
        assert "no answer: " in await command.line()


@pytest.mark.parametrize(
    ("words", "settings", "said"),
    [
        pytest.param([], {}, "say what to listen to: --app APP, --source NAME, or both", id="neither"),
        pytest.param(["--app", "none"], {}, "there is no application 'none'", id="unknown"),
        pytest.param(["--app", "x"], {"API_KEY": "hlk_x"}, "set HOOKLEDGER_API_KEY", id="key"),
        pytest.param(["--app", "x", "--secret", "s"], {}, "--secret: ", id="secret"),
        pytest.param(["--app", "x", "--forward-to", "localhost"], {}, "no http URL: 'localhost'", id="target"),
        pytest.param(["--app", "x"], {"URL": "http://127.0.0.1:1"}, "check HOOKLEDGER_URL", id="away"),
    ],
)
async def test_what_is_wrong_is_said_in_a_line(
    registry: Registry, words: list[str], settings: dict[str, str], said: str
) -> None:
    environ = environment({"URL": registry.url, "API_KEY": registry.key} | settings)
    line = ["listen", "--forward-to", "http://localhost:3000/", *words]
    result = await asyncio.to_thread(CliRunner().invoke, commands, line, env=environ)
    assert (result.exit_code, result.output.count("\n")) == (2, 1)
    assert said in result.output
