"""Duplicates: whatever comes again, at once or later, here or at another replica, becomes one message."""

import asyncio
import json
import re
import secrets
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any

import aio_pika
import aiohttp
import pytest

from deploy.stack.services import Service
from libs.common.domain import ids
from libs.common.domain.ids import Prefix
from tests.integration.ingress.stand import (
    Stand,
    Tenant,
    cloud_event,
    publish,
    standard_signed,
    started,
    stripe_event,
    stripe_signed,
)
from tests.support.client import Answer, Client, connected
from tests.support.patience import PATIENCE_SECONDS, eventually

AT_ONCE = 50
ROUNDS = 200


@pytest.fixture(scope="module")
def replicas(stand: Stand) -> Iterator[tuple[Service, Service]]:
    pair = stand.replica("1"), stand.replica("2")
    with started(*pair):
        yield pair


@pytest.fixture
async def clients(replicas: tuple[Service, Service], tenant: Tenant) -> Any:
    async with connected(replicas[0].url, tenant.key) as one, connected(replicas[1].url, tenant.key) as other:
        yield one, other


def message(**fields: Any) -> dict[str, Any]:
    return {"eventType": "order.completed", "payload": {"n": 1}} | fields


async def at_once(clients: Sequence[Client], path: str, body: bytes, headers: dict[str, str]) -> list[Answer]:
    return await asyncio.gather(
        *(clients[number % len(clients)].request("POST", path, data=body, headers=headers) for number in range(AT_ONCE))
    )


def replayed(answers: Sequence[Answer]) -> int:
    return sum(answer.headers.get("Idempotent-Replayed") == "true" for answer in answers)


# Idempotency-Key


async def test_fifty_at_once_under_one_idempotency_key_are_one_message(clients: Sequence[Client], stand: Stand) -> None:
    tenant = await stand.create_tenant()
    headers = {"Authorization": f"Bearer {tenant.key}", "Idempotency-Key": "key"}
    answers = await at_once(clients, tenant.path, json.dumps(message()).encode(), headers)
    assert {answer.status for answer in answers} == {202}
    assert len({answer.body for answer in answers}) == 1
    assert replayed(answers) == AT_ONCE - 1
    assert await stand.count("message", app=tenant.app) == 1


async def test_another_body_under_the_same_key_is_409(clients: Sequence[Client], tenant: Tenant) -> None:
    headers = {"Idempotency-Key": "key-409"}
    assert (await clients[0].request("POST", tenant.path, json=message(), headers=headers)).status == 202
    other = await clients[1].request("POST", tenant.path, json=message(payload={"n": 2}), headers=headers)
    assert (other.status, other.json["code"]) == (409, "conflict")


async def test_the_key_is_judged_before_the_content(clients: Sequence[Client], tenant: Tenant) -> None:
    headers = {"Idempotency-Key": "key-first"}
    await clients[0].request("POST", tenant.path, json=message(), headers=headers)
    assert (await clients[0].request("POST", tenant.path, data=b"{", headers=headers)).status == 409


async def test_a_request_that_did_not_validate_does_not_take_its_key(clients: Sequence[Client], tenant: Tenant) -> None:
    headers = {"Idempotency-Key": "key-free"}
    assert (await clients[0].request("POST", tenant.path, data=b"{", headers=headers)).status == 422
    assert (await clients[0].request("POST", tenant.path, json=message(), headers=headers)).status == 202


async def test_a_key_is_of_one_api_key_and_path(clients: Sequence[Client], stand: Stand, tenant: Tenant) -> None:
    headers = {"Idempotency-Key": "key-scope"}
    key = await stand.create_key(tenant.org)
    answers = [
        await clients[0].request("POST", tenant.path, json=message(), headers=headers),
        await clients[0].request("POST", f"/api/v1/app/{tenant.app_uid}/msg", json=message(), headers=headers),
        await clients[0].request(
            "POST", tenant.path, json=message(), headers=headers | {"Authorization": f"Bearer {key}"}
        ),
    ]
    assert [answer.status for answer in answers] == [202] * 3
    assert len({answer.json["id"] for answer in answers}) == 3


@pytest.mark.parametrize("path", ["", "/batch"])
async def test_a_repetition_gets_the_first_answer_whatever_has_changed(
    clients: Sequence[Client], stand: Stand, path: str
) -> None:
    tenant = await stand.create_tenant(accept_rate=2)
    body = {"messages": [message(), message()]} if path else message()
    headers = {"Authorization": f"Bearer {tenant.key}", "Idempotency-Key": "key-of-old"}

    async def answer(**changed: Any) -> Answer:
        return await clients[0].request("POST", tenant.path + path, json=body | changed, headers=headers)

    async def use_up() -> Answer:
        other = {"Authorization": f"Bearer {tenant.key}"}
        return await clients[0].request("POST", tenant.path, json=message(), headers=other)

    first = await answer()
    assert first.status in {200, 202}
    await eventually(use_up, lambda found: found.status == 429)
    assert is_first_again(await answer(), first)
    await stand.delete(tenant.app)
    await eventually(use_up, lambda found: found.status == 404)
    assert is_first_again(await answer(), first)
    assert (await answer(application={"name": "another"})).status == 409


def is_first_again(again: Answer, first: Answer) -> bool:
    """Whether it is the first answer, and says so."""
    says_so = again.headers.get("Idempotent-Replayed") == "true"
    return says_so and (again.status, again.body.replace(b',"replayed":true', b"")) == (first.status, first.body)


async def test_a_repetition_of_a_message_with_an_event_id_is_replayed(
    clients: Sequence[Client], tenant: Tenant
) -> None:
    headers = {"Idempotency-Key": "key-and-event"}
    first, second = [
        await client.request("POST", tenant.path, json=message(eventId="event-and-key"), headers=headers)
        for client in clients
    ]
    assert (first.status, second.status) == (202, 202)
    assert first.body == second.body


# eventId


async def test_of_fifty_at_once_with_one_event_id_one_is_accepted(clients: Sequence[Client], stand: Stand) -> None:
    tenant = await stand.create_tenant()
    headers = {"Authorization": f"Bearer {tenant.key}"}
    answers = await at_once(clients, tenant.path, json.dumps(message(eventId="event")).encode(), headers)
    assert sorted(answer.status for answer in answers) == [202] + [409] * (AT_ONCE - 1)
    assert await stand.count("message", app=tenant.app) == 1


async def test_a_request_that_loses_by_its_event_id_leaves_its_key_free(
    clients: Sequence[Client], tenant: Tenant
) -> None:
    await clients[0].request("POST", tenant.path, json=message(eventId="taken"))
    headers = {"Idempotency-Key": "key-of-a-loser"}
    lost = await clients[0].request("POST", tenant.path, json=message(eventId="taken"), headers=headers)
    assert lost.status == 409
    again = await clients[1].request("POST", tenant.path, json=message(eventId="not-taken"), headers=headers)
    assert again.status == 202


async def test_keys_and_event_ids_that_cross_at_once_leave_one_message_for_each_event(
    clients: Sequence[Client], stand: Stand
) -> None:
    tenant = await stand.create_tenant()
    wanted = [(f"key-{number % 7}", f"event-{number % 5}") for number in range(210)]
    secrets.SystemRandom().shuffle(wanted)
    answers = await asyncio.gather(
        *(
            clients[number % 2].request(
                "POST",
                tenant.path,
                json=message(eventId=event),
                headers={"Authorization": f"Bearer {tenant.key}", "Idempotency-Key": key},
            )
            for number, (key, event) in enumerate(wanted)
        )
    )
    accepted = [answer for answer in answers if answer.status == 202 and not replayed([answer])]
    assert {answer.status for answer in answers} == {202, 409}
    assert len(accepted) == 5
    assert len({answer.json["eventId"] for answer in accepted}) == 5
    assert await stand.count("message", app=tenant.app) == 5
    assert await stand.count("idempotency", app=tenant.app, kind="event_id") == 5
    assert await stand.count("idempotency", app=tenant.app, kind="idempotency_key") == 5


# A provider's event id


async def test_a_providers_event_that_comes_fifty_times_at_once_is_one_message(
    clients: Sequence[Client], stand: Stand
) -> None:
    tenant = await stand.create_tenant()
    body = stripe_event("evt_again")
    answers = await at_once(clients, tenant.path_in("stripe"), body, stripe_signed(body))
    assert {answer.status for answer in answers} == {202}
    assert len({answer.json["id"] for answer in answers}) == 1
    assert replayed(answers) == AT_ONCE - 1
    assert await stand.count("message", app=tenant.app) == 1


async def test_another_source_may_use_the_same_event_id(clients: Sequence[Client], stand: Stand) -> None:
    tenant = await stand.create_tenant()
    body = stripe_event("evt_shared")
    first = await clients[0].request("POST", tenant.path_in("stripe"), data=body, headers=stripe_signed(body))
    headers = standard_signed(body, "evt_shared")
    second = await clients[0].request("POST", tenant.path_in("standard-webhooks"), data=body, headers=headers)
    assert (first.status, second.status) == (202, 202)
    assert first.json["id"] != second.json["id"]


# CloudEvents


async def recognised(clients: Sequence[Client]) -> int:
    """How many CloudEvents the replicas have found to be repetitions."""
    pages = [(await client.request("GET", "/metrics")).body.decode() for client in clients]
    found = re.findall(r'^hookledger_duplicates_total\{kind="cloud_event"\} (\S+)$', "\n".join(pages), re.MULTILINE)
    return sum(int(float(number)) for number in found)


async def until_recognised(clients: Sequence[Client], count: int, *, within: float = PATIENCE_SECONDS) -> None:
    """Wait until that is so many: all that was published is settled then."""
    await eventually(lambda: recognised(clients), lambda number: number == count, within=within)


async def test_a_producers_event_that_comes_fifty_times_is_one_message(
    clients: Sequence[Client], stand: Stand, tenant: Tenant, channel: aio_pika.abc.AbstractChannel
) -> None:
    before, repeated = await stand.count("message", app=tenant.app, origin="broker"), await recognised(clients)
    body = cloud_event(tenant, "again")
    await asyncio.gather(*(publish(channel, stand, body) for _ in range(AT_ONCE)))
    await until_recognised(clients, repeated + AT_ONCE - 1)
    assert await stand.count("message", app=tenant.app, origin="broker") == before + 1


# Over HTTP and over the broker at once


async def test_in_200_rounds_fifty_at_once_over_http_and_the_broker_are_one_message_each(
    clients: Sequence[Client], stand: Stand, channel: aio_pika.abc.AbstractChannel, tenant: Tenant
) -> None:
    before = {origin: await stand.count("message", app=tenant.app, origin=origin) for origin in ("api", "broker")}
    repeated = await recognised(clients)
    headers = {"Authorization": f"Bearer {tenant.key}", "Content-Type": "application/json"}
    connector = aiohttp.TCPConnector(limit=2 * AT_ONCE)

    async with aiohttp.ClientSession(connector=connector) as session:

        async def send(client: Client, body: bytes) -> int:
            async with session.post(client.url + tenant.path, data=body, headers=headers) as response:
                return response.status

        async def round_of(number: int) -> None:
            name = f"round-{number}"
            body = json.dumps(message(eventId=name)).encode()
            event = cloud_event(tenant, name)
            statuses, _ = await asyncio.gather(
                asyncio.gather(*(send(clients[place % 2], body) for place in range(AT_ONCE // 2))),
                asyncio.gather(*(publish(channel, stand, event) for _ in range(AT_ONCE // 2))),
            )
            assert sorted(statuses) == [202] + [409] * (AT_ONCE // 2 - 1)

        for number in range(0, ROUNDS, 4):
            await asyncio.gather(*(round_of(number + beside) for beside in range(4)))
    await until_recognised(clients, repeated + ROUNDS * (AT_ONCE // 2 - 1), within=2 * PATIENCE_SECONDS)
    assert await stand.count("message", app=tenant.app, origin="broker") == before["broker"] + ROUNDS
    assert await stand.count("message", app=tenant.app, origin="api") == before["api"] + ROUNDS


# Later


async def test_after_their_time_keys_are_fresh(stand: Stand) -> None:
    tenant = await stand.create_tenant()
    replica = stand.replica("short", IDEMPOTENCY_HOURS=str(1.5 / 3600))
    body = stripe_event("evt_later")
    headers = {"Idempotency-Key": "later"}
    with started(replica):
        async with connected(replica.url, tenant.key) as client:
            kinds: dict[str, Callable[[], Awaitable[Answer]]] = {
                "provider": lambda: client.request(
                    "POST", tenant.path_in("stripe"), data=body, headers=stripe_signed(body)
                ),
                "event id": lambda: client.request("POST", tenant.path, json=message(eventId="later")),
                "key": lambda: client.request("POST", tenant.path, json=message(), headers=headers),
            }
            first = {name: (await send()).json["id"] for name, send in kinds.items()}
            assert (await kinds["key"]()).json["id"] == first["key"]
            await asyncio.sleep(1.6)
            second = {name: (await send()).json["id"] for name, send in kinds.items()}
    assert set(first.values()).isdisjoint(second.values())
    assert await stand.count("message", app=tenant.app) == 6
    assert ids.decode(Prefix.MESSAGE, first["key"]) < ids.decode(Prefix.MESSAGE, second["key"])
