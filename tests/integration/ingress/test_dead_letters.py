"""Dead letters, as the operator sees them: listed, shown, sent again, dropped; and none is lost by looking."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import aio_pika
import pytest
from aio_pika.abc import AbstractChannel
from pamqp.common import FieldValue
from typer.testing import CliRunner

from deploy.stack.services import Service
from services.admin.commands import commands
from tests.integration.ingress.stand import Stand, Tenant, binary_event, cloud_event, publish

EVENT = "application/cloudevents+json"
BATCH = "application/cloudevents-batch+json"


class Operator:
    """Who types the commands."""

    def __init__(self, stand: Stand) -> None:
        corner = stand.installation.corner
        self.settings = {"HOOKLEDGER_AMQP_URL": corner.amqp_url, "HOOKLEDGER_AMQP_PREFIX": corner.amqp_prefix}

    async def does(self, *words: str, expect: int = 0, **settings: str) -> str:
        """What the command prints, on whichever stream."""
        env = self.settings | {f"HOOKLEDGER_{name}": value for name, value in settings.items()}
        done = await asyncio.to_thread(CliRunner().invoke, commands, ["dead-letter", *words], env=env)
        assert done.exit_code == expect, done.output
        return done.output

    async def ids(self, *words: str) -> list[str]:
        """The listed ids, in their order."""
        lines = (await self.does("list", *words)).splitlines()
        return [line.split()[0] for line in lines[1:] if not line.startswith("the oldest")]


@pytest.fixture
def operator(stand: Stand) -> Operator:
    return Operator(stand)


@pytest.fixture
async def channel(stand: Stand, channel: AbstractChannel) -> AsyncIterator[AbstractChannel]:
    """A producer's channel; the dead letters are its test's own."""
    queue = await channel.get_queue(stand.names.dead, ensure=False)
    await queue.purge()
    yield channel
    await queue.purge()


async def waiting(channel: AbstractChannel, stand: Stand, count: int) -> None:
    """Until there are so many dead letters."""
    found = -1
    async with asyncio.timeout(15):
        while found != count:
            queue = await channel.declare_queue(stand.names.dead, passive=True)
            found = queue.declaration_result.message_count or 0
            await asyncio.sleep(0.02)


async def test_they_are_listed_in_their_order_and_stay(
    ingress: Service, stand: Stand, tenant: Tenant, channel: AbstractChannel, operator: Operator
) -> None:
    assert await operator.does("list") == "no dead letters\n"
    for n in range(5):
        await publish(channel, stand, cloud_event(tenant, f"p-{n}", hookledgerapp=f"nobody-{n}"))
        await waiting(channel, stand, n + 1)
    listed = await operator.does("list")
    header, first, *_ = listed.splitlines()
    assert header.split() == ["ID", "WHEN", "FROM", "CONTENT", "TYPE", "BYTES", "REASON"]
    assert stand.names.publish_queue in first
    assert "the organisation has no application that hookledgerapp names" in first
    assert f"{datetime.now(UTC):%Y-%m-%d}" in first
    every = await operator.ids()
    assert len(set(every)) == 5
    assert await operator.ids("--limit", "2") == every[:2]
    for _ in range(2):
        assert await operator.ids() == every
    await waiting(channel, stand, 5)
    for n, identity in enumerate(every):
        assert f"nobody-{n}" in await operator.does("show", identity)


async def test_looking_more_often_than_any_delivery_limit_loses_none(
    ingress: Service, stand: Stand, tenant: Tenant, channel: AbstractChannel
) -> None:
    from services.admin.dead_letters import dead_letters_of

    for n in range(3):
        await publish(channel, stand, cloud_event(tenant, f"q-{n}", hookledgerapp=f"nobody-{n}"))
        await waiting(channel, stand, n + 1)
    seen = set()
    for _ in range(30):
        async with dead_letters_of(stand.installation.corner.amqp_url, stand.names) as found:
            letters, count = await found.oldest(2)
            seen.add((*(letter.id for letter in letters), count))
    assert len(seen) == 1
    await waiting(channel, stand, 3)


async def test_whoever_looks_next_sees_them_all(ingress: Service, stand: Stand, channel: AbstractChannel) -> None:
    from services.admin.dead_letters import dead_letters_of

    for n in range(200):
        await publish(channel, stand, b"x" * 10_000 + b"%d" % n)
    await waiting(channel, stand, 200)
    for _ in range(10):
        async with dead_letters_of(stand.installation.corner.amqp_url, stand.names) as found:
            assert [(await found.oldest(1))[1] for _ in range(3)] == [200] * 3


async def test_one_is_shown_with_its_headers_and_its_body_and_obeys_no_terminal(
    ingress: Service, stand: Stand, tenant: Tenant, channel: AbstractChannel, operator: Operator
) -> None:
    headers = binary_event(tenant, "shown", type="a b", evil="\x1b[2Jred")
    await publish(channel, stand, b"\x89PNG\0", content_type="image/png", headers=headers)
    await publish(channel, stand, b"not\n\ttext\x1b[2J")
    await publish(channel, stand, b'{"text":\n"zo\xc3\xab"')
    await publish(channel, stand, b"x" * 20_000)
    await waiting(channel, stand, 4)
    shown = {await operator.does("show", identity) for identity in await operator.ids()}
    assert any("89 50 4e 47 00" in text and r"header ce-evil: \x1b[2Jred" in text for text in shown)
    assert any("6e 6f 74 0a 09" in text for text in shown)
    assert any('{"text":\n"zoë"' in text for text in shown)
    assert any(text.endswith("x\n… and 3616 bytes more\n") for text in shown)
    assert not any("\x1b" in text for text in shown)
    assert "is no dead letter" in await operator.does("show", "nothing", expect=1)


async def test_what_is_sent_again_is_accepted_once_its_cause_is_mended(
    ingress: Service, stand: Stand, tenant: Tenant, channel: AbstractChannel, operator: Operator
) -> None:
    from libs.common.contracts.registry import ApplicationDocument, Kind

    late = {"hookledgerapp": "late", "type": "late"}
    headers = binary_event(tenant, "late-1", **late)
    await publish(channel, stand, b"\xff", content_type="image/png", headers=headers)
    batch = b"[" + cloud_event(tenant, "late-2", **late) + b"," + cloud_event(tenant, "n", type="late-good") + b"]"
    await publish(channel, stand, batch, content_type=BATCH)
    await publish(channel, stand, cloud_event(tenant, "never", hookledgerapp="never"))
    await waiting(channel, stand, 3)
    told = await operator.does("redrive", "--all")
    assert told.count("sent again") == 3  # those that die again are not taken again
    await waiting(channel, stand, 3)
    assert await stand.count("message", event_type="late") == 0
    await stand.create(Kind.APPLICATION, ApplicationDocument(name="late"), org=tenant.org, uid="late")
    await operator.does("redrive", "--all")
    await stand.until(2, "message", event_type="late", org=tenant.org)
    await stand.until(1, "message", event_type="late", content_type="image/png")
    await waiting(channel, stand, 1)
    [left] = await operator.ids()
    assert "never" in await operator.does("show", left)


async def test_one_is_chosen_by_its_id_and_the_others_keep_their_order(
    ingress: Service, stand: Stand, tenant: Tenant, channel: AbstractChannel, operator: Operator
) -> None:
    for n in range(4):
        await publish(channel, stand, cloud_event(tenant, f"r-{n}", hookledgerapp=f"nobody-{n}"))
        await waiting(channel, stand, n + 1)
    first, second, third, fourth = await operator.ids()
    assert await operator.does("drop", third) == f"{third} dropped\n"
    assert await operator.ids() == [first, second, fourth]
    await operator.does("redrive", second)
    await waiting(channel, stand, 3)  # it died again, and is behind now
    again = await operator.ids()
    assert again[:2] == [first, fourth]
    assert again[2] not in (first, second, third, fourth)
    told = await operator.does("redrive", "nothing", expect=1)
    assert told == "nothing is no dead letter\n"


async def test_a_redriven_event_is_its_publishers_and_nobody_can_claim_to_be_another(
    ingress: Service, stand: Stand, tenant: Tenant, channel: AbstractChannel, operator: Operator
) -> None:
    other = await stand.create_tenant(broker_user="somebody-else")
    claim = {"x-hookledger-user": "somebody-else", "x-hookledger-reason": "forged", "x-death": []}
    await publish(channel, stand, cloud_event(other, "forged", type="forged"), headers=claim)
    await waiting(channel, stand, 1)
    [identity] = await operator.ids()
    assert "user: hookledger" in await operator.does("show", identity)
    await operator.does("redrive", identity)
    await waiting(channel, stand, 1)
    assert await stand.count("message", event_type="forged") == 0


async def test_what_somebody_put_straight_into_the_queue_is_sent_again_as_nobodys(
    ingress: Service, stand: Stand, channel: AbstractChannel, operator: Operator
) -> None:
    other = await stand.create_tenant(broker_user="victim")
    forged: dict[str, FieldValue] = {"x-hookledger-user": "victim", "x-hookledger-reason": "forged"}
    message = aio_pika.Message(cloud_event(other, "planted", type="planted"), content_type=EVENT, headers=forged)
    await channel.default_exchange.publish(message, stand.names.dead)
    await waiting(channel, stand, 1)
    told = await operator.does("redrive", "--all", expect=1)
    assert "stays: it does not say which queue it came from" in told
    await waiting(channel, stand, 1)


async def test_without_the_exchange_by_which_they_go_again_that_is_what_is_said(
    ingress: Service, stand: Stand, tenant: Tenant, channel: AbstractChannel, operator: Operator
) -> None:
    await publish(channel, stand, cloud_event(tenant, "no-way", hookledgerapp="nobody"))
    await waiting(channel, stand, 1)
    async with await aio_pika.connect(stand.installation.corner.amqp_url) as connection:
        deleting = await connection.channel()
        await deleting.exchange_delete(stand.names.redrive)
        try:
            told = await operator.does("redrive", "--all", expect=2)
        finally:
            again = await deleting.declare_exchange(stand.names.redrive, aio_pika.ExchangeType.FANOUT, durable=True)
            await (await deleting.get_queue(stand.names.publish_queue)).bind(again)
    assert f"there is no exchange {stand.names.redrive}" in told
    await waiting(channel, stand, 1)


async def test_an_envelope_goes_back_to_its_queue_alone(
    ingress: Service, stand: Stand, channel: AbstractChannel, operator: Operator
) -> None:
    names = stand.names
    envelopes = await channel.get_queue(names.messages_queue, ensure=False)
    await envelopes.purge()
    exchange = await channel.get_exchange(names.messages, ensure=False)
    await exchange.publish(aio_pika.Message(b"an envelope", content_type="x/envelope"), names.messages_queue)
    message = await envelopes.get(timeout=10)
    assert message is not None
    await message.reject(requeue=False)
    await waiting(channel, stand, 1)
    listed = await operator.does("list")
    assert f"{names.messages_queue}  x/envelope    11     rejected" in listed
    await operator.does("redrive", "--all")
    again = await envelopes.get(timeout=10, no_ack=True)
    assert again is not None
    assert (again.body, again.content_type, again.headers) == (b"an envelope", "x/envelope", {})
    await waiting(channel, stand, 0)


async def test_what_came_from_nowhere_or_from_a_queue_that_is_gone_stays(
    ingress: Service, stand: Stand, channel: AbstractChannel, operator: Operator
) -> None:
    names = stand.names
    exchange = await channel.get_exchange(names.dead, ensure=False)
    await exchange.publish(aio_pika.Message(b"by hand"), "")
    temporary = await channel.declare_queue("", exclusive=True, arguments={"x-dead-letter-exchange": names.dead})
    await channel.default_exchange.publish(aio_pika.Message(b"theirs"), temporary.name)
    message = await temporary.get(timeout=10)
    assert message is not None
    await message.reject(requeue=False)
    await waiting(channel, stand, 2)
    await temporary.delete(if_empty=False)
    told = await operator.does("redrive", "--all", expect=1)
    assert "stays: it does not say which queue it came from" in told
    assert f"stays: there is no queue {temporary.name} any more" in told
    await waiting(channel, stand, 2)


async def test_what_cannot_work_is_said_in_one_line(operator: Operator, ingress: Service) -> None:
    for words, settings, said in (
        (["list"], {"AMQP_URL": "amqp://guest:guest@127.0.0.1:1/"}, "cannot be reached"),
        (["list"], {"AMQP_URL": "http://127.0.0.1/"}, "HOOKLEDGER_AMQP_URL"),
        (["list"], {"AMQP_PREFIX": "elsewhere"}, "HOOKLEDGER_AMQP_PREFIX"),
        (["redrive"], {}, "--all"),
    ):
        (line,) = (await operator.does(*words, expect=2, **settings)).splitlines()
        assert said in line
