"""CloudEvents in batches and in binary form: the same messages, by the same rules, as those in structured form."""

import json
from collections import Counter
from datetime import UTC, datetime
from typing import Any

import pytest
from aio_pika.abc import AbstractChannel

from deploy.stack.services import Service
from tests.integration.ingress.stand import Stand, Tenant, binary_event, cloud_event, next_dead, publish

BATCH = "application/cloudevents-batch+json"


async def bodies(stand: Stand, event_type: str) -> list[bytes]:
    rows = await stand.observer.fetch(
        "SELECT b.body FROM hookledger.message m JOIN hookledger.message_body b ON b.message = m.id"
        " WHERE m.event_type = $1",
        event_type,
    )
    return [row["body"] for row in rows]


async def nothing_waits(channel: AbstractChannel, stand: Stand) -> bool:
    """Whether everything was acknowledged."""
    queue = await channel.declare_queue(stand.names.publish_queue, passive=True)
    return queue.declaration_result.message_count == 0


def batch_of(*events: bytes) -> bytes:
    return b"[" + b" ,\n".join(events) + b"]"


async def test_a_batch_becomes_messages_with_the_exact_bytes_of_their_data(
    ingress: Service, stand: Stand, tenant: Tenant, channel: AbstractChannel
) -> None:
    data = ['{ "z":1.0,\n"a":"\\u00e9" }', "[1 , 2]", '"text"']
    events = [cloud_event(tenant, f"b-{n}", data=each, type="batched") for n, each in enumerate(data)]
    await publish(channel, stand, batch_of(*events), content_type=BATCH)
    await stand.until(3, "message", event_type="batched")
    assert Counter(await bodies(stand, "batched")) == Counter(each.encode() for each in data)


async def test_the_events_of_a_batch_share_a_commit(
    ingress: Service, stand: Stand, tenant: Tenant, channel: AbstractChannel
) -> None:
    events = [cloud_event(tenant, f"c-{n}", type="together") for n in range(1000)]
    await publish(channel, stand, batch_of(*events), content_type=BATCH)
    await stand.until(1000, "message", event_type="together")
    commits = await stand.observer.fetchval(
        "SELECT count(DISTINCT f.xact) FROM hookledger.fact f JOIN hookledger.message m ON m.id = f.stream"
        " WHERE m.event_type = 'together' AND f.kind = 'MessageAccepted'"
    )
    assert commits <= 5  # of 256 at most


async def test_a_batch_that_comes_twice_and_an_event_that_is_in_it_twice_are_accepted_once(
    ingress: Service, stand: Stand, tenant: Tenant, channel: AbstractChannel
) -> None:
    events = [cloud_event(tenant, f"twice-{n % 5}", type="twice") for n in range(10)]
    for _ in range(2):
        await publish(channel, stand, batch_of(*events), content_type=BATCH)
    await publish(channel, stand, cloud_event(tenant, "after", type="after-twice"))
    await stand.until(1, "message", event_type="after-twice")
    await stand.until(5, "message", event_type="twice")
    assert await nothing_waits(channel, stand)


async def test_an_event_is_the_same_in_each_form(
    ingress: Service, stand: Stand, tenant: Tenant, channel: AbstractChannel
) -> None:
    event = cloud_event(tenant, "same", type="same")
    await publish(channel, stand, event)
    await publish(channel, stand, batch_of(event), content_type=BATCH)
    headers = binary_event(tenant, "same", type="same")
    await publish(channel, stand, b'{"n" : 1}', content_type="application/json", headers=headers)
    await publish(channel, stand, cloud_event(tenant, "last", type="after-same"))
    await stand.until(1, "message", event_type="after-same")
    assert await bodies(stand, "same") == [b'{"n" : 1}']


async def test_a_bad_event_of_a_batch_is_parked_alone_and_its_siblings_are_accepted(
    ingress: Service, stand: Stand, tenant: Tenant, channel: AbstractChannel
) -> None:
    bad = [
        cloud_event(tenant, "bad", hookledgerapp="nobody"),
        cloud_event(tenant, "bad", type="a b"),
        cloud_event(tenant, "bad", data='{"a":1,"a":2}'),
        cloud_event(tenant, "bad", data=json.dumps("x" * 1024 * 1024)),
        b"7",
    ]
    good = [cloud_event(tenant, f"good-{n}", type="sibling") for n in range(len(bad))]
    mixed = [event for pair in zip(good, bad, strict=True) for event in pair]
    await publish(channel, stand, batch_of(*mixed), content_type=BATCH)
    await stand.until(len(good), "message", event_type="sibling")
    dead = [await next_dead(channel, stand) for _ in bad]
    assert sorted(letter.body for letter in dead) == sorted(bad)
    assert {letter.content_type for letter in dead} == {"application/cloudevents+json"}
    assert all(letter.headers["x-hookledger-reason"] for letter in dead)
    assert await nothing_waits(channel, stand)


async def test_a_batch_that_is_none_is_parked_whole_and_those_behind_it_flow(
    ingress: Service, stand: Stand, tenant: Tenant, channel: AbstractChannel
) -> None:
    poison = {
        "not valid JSON": b"[",
        "not a JSON array": b'{"specversion":"1.0"}',
        "more than 1000 events": b"[" + b",".join([b"1"] * 1001) + b"]",
        "larger than": b" " * 5 * 1024 * 1024 + b"[]",
    }
    for said, body in poison.items():
        await publish(channel, stand, body, content_type=BATCH)
        dead = await next_dead(channel, stand)
        assert (dead.body, dead.content_type) == (body, BATCH)
        assert said in str(dead.headers["x-hookledger-reason"])
    await publish(channel, stand, batch_of(cloud_event(tenant, "behind", type="behind-none")), content_type=BATCH)
    await stand.until(1, "message", event_type="behind-none")


async def test_an_empty_batch_is_acknowledged(
    ingress: Service, stand: Stand, tenant: Tenant, channel: AbstractChannel
) -> None:
    await publish(channel, stand, b" [ ] ", content_type=BATCH)
    await publish(channel, stand, cloud_event(tenant, "e", type="after-empty"))
    await stand.until(1, "message", event_type="after-empty")
    assert await nothing_waits(channel, stand)


async def test_a_batch_of_which_a_part_was_accepted_before_a_crash_is_completed_and_nothing_is_doubled(
    ingress: Service, stand: Stand, tenant: Tenant, channel: AbstractChannel
) -> None:
    events = [cloud_event(tenant, f"part-{n}", type="part") for n in range(500)]
    await publish(channel, stand, batch_of(*events[100:356]), content_type=BATCH)
    await stand.until(256, "message", event_type="part")
    await publish(channel, stand, batch_of(*events), content_type=BATCH)
    await publish(channel, stand, cloud_event(tenant, "after-part", type="after-part"))
    await stand.until(1, "message", event_type="after-part")
    await stand.until(500, "message", event_type="part")


@pytest.mark.parametrize("data", [b'{ "z":1.0,\n"a":"\\u00e9" }', b"[1 , 2]"])
async def test_binary_json_keeps_its_bytes(
    ingress: Service, stand: Stand, tenant: Tenant, channel: AbstractChannel, data: bytes
) -> None:
    event_type = f"binary-json-{len(data)}"
    headers = binary_event(tenant, event_type, type=event_type)
    await publish(channel, stand, data, content_type="application/json", headers=headers)
    await stand.until(1, "message", event_type=event_type, content_type="application/json")
    assert await bodies(stand, event_type) == [data]


async def test_binary_data_may_be_any_bytes_and_headers_of_any_type(
    ingress: Service, stand: Stand, tenant: Tenant, channel: AbstractChannel
) -> None:
    headers: dict[str, Any] = {
        "cloudEvents:specversion": bytearray(b"1.0"),
        "CE-ID": 4711,
        "cloudEvents_source": "/tests",
        "ce-type": "binary-image",
        "ce-time": datetime(2026, 8, 21, 10, tzinfo=UTC),
        "ce-urgent": True,
        "cloudEvents:hookledgerapp": bytearray(tenant.app_uid.encode()),
    }
    await publish(channel, stand, b"\x89PNG\0\xff", content_type="image/png", headers=headers)
    await stand.until(1, "message", event_type="binary-image", content_type="image/png")
    assert await bodies(stand, "binary-image") == [b"\x89PNG\0\xff"]


async def test_binary_poison_is_parked_as_it_came_and_those_behind_it_flow(
    ingress: Service, stand: Stand, tenant: Tenant, channel: AbstractChannel
) -> None:
    poison: dict[str, tuple[dict[str, Any], bytes, str]] = {
        "no id": (binary_event(tenant, "p", id=None), b"1", "id is missing"),
        "twice": (binary_event(tenant, "p") | {"cloudEvents:id": "q"}, b"1", "twice"),
        "not the JSON it is said to be": (binary_event(tenant, "p"), b"{", "not the JSON"),
        "no data": (binary_event(tenant, "p"), b"", "no data"),
        "no application": (binary_event(tenant, "p", hookledgerapp=None), b"1", "hookledgerapp is missing"),
        "too large": (binary_event(tenant, "p"), b'"' + b"x" * 1024 * 1024 + b'"', "larger than"),
    }
    for name, (headers, body, said) in poison.items():
        await publish(channel, stand, body, content_type="application/json", headers=headers)
        dead = await next_dead(channel, stand)
        assert (dead.body, dead.content_type) == (body, "application/json"), name
        assert said in str(dead.headers["x-hookledger-reason"]), name
        assert {header for header in dead.headers if not header.startswith("x-")} == set(headers), name
    headers = binary_event(tenant, "behind-binary", type="behind-binary")
    await publish(channel, stand, b"1", content_type="application/json", headers=headers)
    await stand.until(1, "message", event_type="behind-binary")
