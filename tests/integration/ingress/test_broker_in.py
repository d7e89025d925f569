"""What producers publish straight to the broker."""

import asyncio
import base64
import json
from typing import Any

import pytest
from aio_pika.abc import AbstractChannel

from deploy.stack.services import Service
from libs.common.contracts import envelope
from tests.integration.ingress.stand import Stand, Tenant, cloud_event, next_dead, publish, started
from tests.support.client import Client


async def only_message(stand: Stand, event_type: str) -> dict[str, Any]:
    await stand.until(1, "message", event_type=event_type)
    row = await stand.observer.fetchrow(
        "SELECT m.*, b.body FROM hookledger.message m JOIN hookledger.message_body b ON b.message = m.id"
        " WHERE m.event_type = $1",
        event_type,
    )
    assert row is not None
    return dict(row)


async def test_an_event_becomes_a_message_with_the_exact_bytes_of_its_data(
    ingress: Service, stand: Stand, tenant: Tenant, channel: AbstractChannel
) -> None:
    await publish(channel, stand, cloud_event(tenant, "exact", data='{ "z":1.0,\n"a":"\\u00e9" }', type="exact"))
    message = await only_message(stand, "exact")
    assert message["body"] == b'{ "z":1.0,\n"a":"\\u00e9" }'
    assert (message["org"], message["app"], message["origin"]) == (tenant.org, tenant.app, "broker")
    assert message["content_type"] == "application/json"


async def test_the_application_may_be_named_by_its_id(
    ingress: Service, stand: Stand, tenant: Tenant, channel: AbstractChannel
) -> None:
    await publish(channel, stand, cloud_event(tenant, "by-id", type="by-id", hookledgerapp=tenant.app_id))
    assert (await only_message(stand, "by-id"))["app"] == tenant.app


async def test_binary_data_is_taken_as_its_bytes(
    ingress: Service, stand: Stand, tenant: Tenant, channel: AbstractChannel
) -> None:
    event = json.loads(cloud_event(tenant, "binary", type="binary", datacontenttype="image/png"))
    del event["data"]
    event["data_base64"] = base64.b64encode(b"\x89PNG\0").decode()
    await publish(channel, stand, json.dumps(event).encode())
    message = await only_message(stand, "binary")
    assert (message["body"], message["content_type"]) == (b"\x89PNG\0", "image/png")


async def test_an_application_created_just_before_is_known(
    ingress: Service, stand: Stand, tenant: Tenant, channel: AbstractChannel
) -> None:
    from libs.common.contracts.registry import ApplicationDocument, Kind

    app = await stand.create(Kind.APPLICATION, ApplicationDocument(name="new"), org=tenant.org, uid="brand-new")
    await publish(channel, stand, cloud_event(tenant, "new", type="new-app", hookledgerapp="brand-new"))
    assert (await only_message(stand, "new-app"))["app"] == app.id


def poison(tenant: Tenant, other: Tenant) -> dict[str, tuple[bytes, dict[str, Any], str]]:
    return {
        "no JSON": (b"{", {}, "not valid JSON"),
        "no event": (b"[]", {}, "not a JSON object"),
        "duplicate keys": (cloud_event(tenant, "p", data='{"a":1,"a":2}'), {}, "same key twice"),
        "another content type": (cloud_event(tenant, "p"), {"content_type": "application/json"}, "content type"),
        "another version": (cloud_event(tenant, "p", specversion="0.3"), {}, "specversion"),
        "no id": (cloud_event(tenant, "p", id=None), {}, "id is missing"),
        "no source": (cloud_event(tenant, "p", source=None), {}, "source is missing"),
        "no type": (cloud_event(tenant, "p", type=None), {}, "type is missing"),
        "a bad type": (cloud_event(tenant, "p", type="a b"), {}, "the type is not"),
        "no application": (cloud_event(tenant, "p", hookledgerapp=None), {}, "hookledgerapp is missing"),
        "an unknown application": (cloud_event(tenant, "p", hookledgerapp="nobody"), {}, "no application"),
        "another organisation's": (cloud_event(tenant, "p", hookledgerapp=other.app_id), {}, "no application"),
        "no user": (cloud_event(tenant, "p"), {"user": None}, "user_id is missing"),
        "too large": (cloud_event(tenant, "p", data=json.dumps("x" * 1024 * 1024)), {}, "larger than"),
        "no data": (cloud_event(tenant, "p").replace(b'"data"', b'"other"'), {}, "other"),
    }


async def test_poison_is_parked_with_its_reason_and_those_behind_it_flow(
    ingress: Service, stand: Stand, tenant: Tenant, channel: AbstractChannel
) -> None:
    other = await stand.create_tenant()
    for name, (body, properties, said) in poison(tenant, other).items():
        await publish(channel, stand, body, **properties)
        dead = await next_dead(channel, stand)
        assert dead.body == body, name
        assert said in str(dead.headers["x-hookledger-reason"]), name
        assert dead.headers["x-hookledger-routing-key"] == "order.completed"
    await publish(channel, stand, cloud_event(tenant, "behind", type="behind-poison"))
    await only_message(stand, "behind-poison")
    rows = await stand.rejected(tenant, len(poison(tenant, other)) - 1)
    assert {(row["origin"], row["source"]) for row in rows} == {("broker", None)}
    assert not any("user_id" in row["reason"] for row in rows)  # whose it was, is not known


async def test_the_organisation_is_never_taken_from_the_content(
    ingress: Service, stand: Stand, tenant: Tenant, channel: AbstractChannel
) -> None:
    other = await stand.create_tenant(broker_user="somebody-else")
    event = cloud_event(other, "theirs", organisation="somebody-else", userid="somebody-else")
    await publish(channel, stand, event)
    assert "no application" in str((await next_dead(channel, stand)).headers["x-hookledger-reason"])
    assert await stand.count("message", org=other.org) == 0


async def test_a_thousand_flow(ingress: Service, stand: Stand, tenant: Tenant, channel: AbstractChannel) -> None:
    await asyncio.gather(*(publish(channel, stand, cloud_event(tenant, f"many-{n}", type="many")) for n in range(1000)))
    await stand.until(1000, "message", event_type="many", seconds=20)


async def test_accepted_messages_are_published_in_envelopes(
    client: Client, stand: Stand, tenant: Tenant, channel: AbstractChannel
) -> None:
    queue = await channel.get_queue(stand.names.messages_queue, ensure=False)
    await queue.purge()
    answers = await asyncio.gather(
        *(
            client.request("POST", tenant.path, json={"eventType": "enveloped", "payload": {"n": n}, "channels": ["c"]})
            for n in range(100)
        )
    )
    published: dict[str, Any] = {}
    envelopes = 0
    async with asyncio.timeout(10):
        while len(published) < 100:
            incoming = await queue.get(no_ack=True, fail=False)
            if incoming is None:
                await asyncio.sleep(0.02)
                continue
            assert incoming.delivery_mode == 2
            ours = {str(each.id): each for each in envelope.decode(incoming.body) if each.event_type == "enveloped"}
            envelopes += bool(ours)
            published |= ours
    assert envelopes < 100
    for answer in answers:
        row = await stand.observer.fetchrow(
            "SELECT m.*, b.body FROM hookledger.message m JOIN hookledger.message_body b ON b.message = m.id"
            " WHERE m.event_type = 'enveloped' AND b.body = $1",
            json.dumps(answer.json["payload"], separators=(",", ":")).encode(),
        )
        assert row is not None
        message = published[str(row["id"])]
        assert (message.body, message.org, message.app) == (row["body"], row["org"], row["app"])
        assert (message.accepted_at, message.registry_version) == (row["accepted_at"], row["registry_version"])
        assert message.channels == frozenset({"c"})


async def test_an_event_that_was_not_acknowledged_is_taken_by_the_next_replica(
    ingress: Service, stand: Stand, tenant: Tenant, channel: AbstractChannel
) -> None:
    ingress.kill()
    for n in range(50):
        await publish(channel, stand, cloud_event(tenant, f"left-{n}", type="left"))
    with started(stand.replica("next")):
        await stand.until(50, "message", event_type="left")
    ingress.start()
    ingress.wait_ready()


@pytest.mark.parametrize("announced", [b"nonsense", b'{"version":"x"}', b'{"version":999999999}', b""])
async def test_a_malformed_announcement_does_no_harm(
    ingress: Service, stand: Stand, tenant: Tenant, channel: AbstractChannel, announced: bytes
) -> None:
    import aio_pika

    exchange = await channel.get_exchange(stand.names.registry, ensure=False)
    await exchange.publish(aio_pika.Message(announced), "", mandatory=False)
    event_type = f"after-{announced.hex()[:8] or 'nothing'}"
    await publish(channel, stand, cloud_event(tenant, event_type, type=event_type))
    await only_message(stand, event_type)


async def test_an_announced_change_is_read_at_once(ingress: Service, stand: Stand, channel: AbstractChannel) -> None:
    import aio_pika

    tenant = await stand.create_tenant()
    version = await stand.observer.fetchval("SELECT version FROM hookledger.registry_version")
    exchange = await channel.get_exchange(stand.names.registry, ensure=False)
    await exchange.publish(aio_pika.Message(json.dumps({"version": version}).encode()), "", mandatory=False)
    async with asyncio.timeout(4):  # before the next poll
        while f'"version":{version},' not in ingress.log.read_text():  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    assert tenant.org
