"""What a producer may ask for beside the delivery, batches, and how fast it may publish."""

import asyncio
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import aio_pika
import pytest

from libs.common.contracts.registry import ApiKeyDocument, Kind, SchemaValidation
from libs.common.domain import ids
from libs.common.domain.ids import Prefix
from libs.common.runtime.http import ApiError
from services.ingress.allowances import Allowances
from services.ingress.throttle import Rates, Throttle
from tests.integration.ingress.stand import Stand, Tenant, cloud_event, next_dead, publish, stripe_event, stripe_signed
from tests.integration.ingress.test_messages import create, identity
from tests.integration.ingress.test_schemas import SCHEMA, event_type, validate
from tests.support.client import Answer, Client, connected


async def batch(client: Client, tenant: Tenant, *items: bytes, headers: Any = None, query: str = "") -> Answer:
    body = b'{"messages":[' + b", ".join(items) + b"]}"
    return await client.request("POST", f"{tenant.path}/batch{query}", data=body, headers=headers)


def item(number: int, **fields: Any) -> bytes:
    return json.dumps({"eventType": "a.b", "payload": {"n": number}} | fields).encode()


# What a message may ask for


async def test_tags_and_the_ordering_key_are_kept(client: Client, stand: Stand, tenant: Tenant) -> None:
    answer = await create(client, tenant, tags=["b", "a"], orderingKey="customer-7")
    assert (answer.json["tags"], answer.json["orderingKey"]) == (["a", "b"], "customer-7")
    row = await stand.observer.fetchrow("SELECT * FROM hookledger.message WHERE id = $1", identity(answer))
    assert row is not None
    assert (row["tags"], row["ordering_key"]) == (["a", "b"], "customer-7")


async def test_a_message_may_be_delivered_later(client: Client, stand: Stand, tenant: Tenant) -> None:
    later = datetime(2026, 8, 21, 12, tzinfo=UTC).replace(year=datetime.now(UTC).year - 1)
    soon = datetime.now(UTC) + timedelta(days=29)
    for at in (later, soon):
        answer = await create(client, tenant, deliverAt=at.isoformat())
        assert datetime.fromisoformat(answer.json["deliverAt"]) == at
        assert await stand.count("message", id=identity(answer), deliver_at=at) == 1


@pytest.mark.parametrize(
    "fields",
    [
        {"deliverAt": "2026-08-21T12:00:00"},
        {"deliverAt": "tomorrow"},
        {"deliverAt": (datetime.now(UTC) + timedelta(days=31)).isoformat()},
        {"payloadRetentionPeriod": 4},
        {"payloadRetentionHours": 0},
        {"tags": ["a,b"]},
        {"tags": [str(n) for n in range(9)]},
        {"orderingKey": "a b"},
    ],
)
async def test_a_wish_that_cannot_be_read_is_422(client: Client, tenant: Tenant, fields: dict[str, Any]) -> None:
    answer = await create(client, tenant, **fields)
    assert (answer.status, answer.json["detail"][0]["loc"][1]) == (422, next(iter(fields)))


async def test_a_body_is_erased_when_its_time_is_over_and_nobody_needs_it_any_more(
    client: Client, stand: Stand, tenant: Tenant
) -> None:
    answers = [await create(client, tenant, payloadRetentionHours=1), await create(client, tenant)]
    kept = [await create(client, tenant, payloadRetentionPeriod=5) for _ in range(2)]
    kept_for = """
        SELECT e.erase_at - m.accepted_at FROM hookledger.body_expiry e JOIN hookledger.message m ON m.id = e.message
        WHERE m.id = $1
    """
    assert await stand.observer.fetchval(kept_for, identity(kept[0])) == timedelta(days=5)
    message = identity(answers[0])
    erase = "SELECT hookledger.erase_expired_bodies(100)"
    await stand.observer.execute("UPDATE hookledger.body_expiry SET erase_at = now() WHERE message = $1", message)
    assert await stand.observer.fetchval(erase) == 0, "it was not fanned out yet"
    await stand.observer.execute("DELETE FROM hookledger.outbox WHERE message = $1", message)
    assert await stand.observer.fetchval(erase) == 1
    assert await stand.count("message_body", message=message) == 0
    for other in (answers[1], *kept):
        assert await stand.count("message_body", message=identity(other)) == 1


async def test_a_producer_on_the_broker_asks_by_extension_attributes(
    ingress: Any, stand: Stand, tenant: Tenant, channel: aio_pika.abc.AbstractChannel
) -> None:
    event = cloud_event(
        tenant,
        "wishes-1",
        hookledgerchannels="b, a",
        hookledgertags="t",
        hookledgerorderkey="k",
        hookledgerdeliverat="2026-01-01T00:00:00Z",
        hookledgerkeephours=24,
    )
    await publish(channel, stand, event)
    await stand.until(1, "message", app=tenant.app, ordering_key="k", channels=["a", "b"], tags=["t"])
    accepted = await stand.observer.fetchval(
        "SELECT id FROM hookledger.message WHERE app = $1 AND ordering_key = 'k'", tenant.app
    )
    assert await stand.count("body_expiry", message=accepted) == 1
    await publish(channel, stand, cloud_event(tenant, "wishes-2", hookledgerdeliverat="soon"))
    dead = await next_dead(channel, stand)
    assert "hookledgerdeliverat" in str(dead.headers)


# Batches


async def test_each_message_of_a_batch_has_its_own_result_and_the_accepted_ones_one_commit(
    client: Client, stand: Stand, tenant: Tenant
) -> None:
    raw = b'{"eventType":"a.b","payload":{ "z":1.0 , "a":"\\u00e9" }}'
    twice = item(1, eventId="twice")
    answer = await batch(client, tenant, raw, item(2, eventType="not a type"), twice, twice, b"7")
    assert answer.status == 200
    assert [each["status"] for each in answer.json["data"]] == [202, 422, 202, 409, 422]
    assert answer.json["data"][1]["detail"][0]["loc"] == ["body", "eventType"]
    accepted = [ids.decode(Prefix.MESSAGE, each["message"]["id"]) for each in answer.json["data"] if "message" in each]
    bodies = await stand.observer.fetch(
        "SELECT body FROM hookledger.message_body WHERE message = ANY($1) ORDER BY message = $2", accepted, accepted[1]
    )
    assert bytes(bodies[0]["body"]) == b'{ "z":1.0 , "a":"\\u00e9" }'
    commits = await stand.observer.fetchval(
        "SELECT count(DISTINCT xmin::text) FROM hookledger.message WHERE id = ANY($1)", accepted
    )
    assert (len(accepted), commits) == (2, 1)


async def test_a_thousand_messages_are_one_commit(client: Client, stand: Stand) -> None:
    tenant = await stand.create_tenant()
    async with connected(client.url, tenant.key) as its_client:
        answer = await batch(its_client, tenant, *(item(n) for n in range(1000)))
        assert {each["status"] for each in answer.json["data"]} == {202}
        too_many = await batch(its_client, tenant, *(item(n) for n in range(1001)))
    commits = await stand.observer.fetch(
        "SELECT count(*) AS messages FROM hookledger.message WHERE app = $1 GROUP BY xmin::text", tenant.app
    )
    assert [row["messages"] for row in commits] == [1000]
    assert too_many.status == 422


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{", b'{"messages":[]}', b'{"messages":[{]}', b'{"messages":7}', b"\xff"]
)
async def test_what_is_no_batch_is_422(client: Client, tenant: Tenant, body: bytes) -> None:
    answer = await client.request("POST", f"{tenant.path}/batch", data=body)
    assert answer.status == 422


async def test_a_batch_is_bounded_and_so_is_each_of_its_messages(client: Client, tenant: Tenant) -> None:
    large = b'{"eventType":"a.b","payload":{"a":"' + b"x" * (1024 * 1024) + b'"}}'
    answer = await batch(client, tenant, large, item(1))
    assert [each["status"] for each in answer.json["data"]] == [413, 202]
    assert (await batch(client, tenant, *[large] * 6)).status == 413


async def test_a_batch_that_is_sent_again_is_the_first_one(client: Client, stand: Stand) -> None:
    tenant = await stand.create_tenant()
    items = [item(1), item(2, eventType="not a type"), item(3)]
    key = {"Idempotency-Key": "batch-1"}
    async with connected(client.url, tenant.key) as its_client:
        answers = await asyncio.gather(*(batch(its_client, tenant, *items, headers=key) for _ in range(5)))
        other = await batch(its_client, tenant, item(1), item(4), headers=key)
    first = [each.get("message", {}).get("id") for each in answers[0].json["data"]]
    for answer in answers:
        assert [each.get("message", {}).get("id") for each in answer.json["data"]] == first
    assert sum("Idempotent-Replayed" in answer.headers for answer in answers) == 4
    assert other.status == 409
    assert await stand.count("message", app=tenant.app) == 2


async def test_a_payload_that_violates_its_schema_is_refused_alone(client: Client, stand: Stand) -> None:
    tenant = await stand.create_tenant()
    await event_type(stand, tenant, "strict", SCHEMA)
    await validate(stand, tenant, SchemaValidation.ENFORCE)
    key = {"Idempotency-Key": "strict-1"}
    items = [item(1, eventType="strict"), item(2), item(3, eventType="strict", payload={"id": "x"})]
    async with connected(client.url, tenant.key) as its_client:
        answer = await batch(its_client, tenant, *items, headers=key)
        assert [each["status"] for each in answer.json["data"]] == [422, 202, 202]
        assert answer.json["data"][0]["detail"][0]["loc"] == ["body", "payload"]
        await event_type(stand, tenant, "a.b", SCHEMA)
        again = await batch(its_client, tenant, *items, headers=key)
    assert [each.get("replayed", False) for each in again.json["data"]] == [False, True, True], "the first answers"
    assert await stand.count("message", app=tenant.app) == 2


# How fast


async def test_when_too_much_waits_more_is_turned_away_at_once(client: Client, stand: Stand) -> None:
    tenant = await stand.create_tenant()
    items = [item(number) for number in range(1000)]
    async with connected(client.url, tenant.key) as its_client, stand.observer.acquire() as connection:
        async with connection.transaction():
            await connection.execute("LOCK TABLE hookledger.message IN EXCLUSIVE MODE")
            waiting = {asyncio.create_task(batch(its_client, tenant, *items)) for _ in range(6)}
            turned_away: set[asyncio.Task[Answer]] = set()
            while len(turned_away) < 2:
                done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                turned_away |= done
        accepted = await asyncio.gather(*waiting)
    for task in turned_away:
        assert (task.result().status, task.result().json["code"]) == (503, "unavailable")
        assert int(task.result().headers["Retry-After"]) >= 1
    assert [answer.status for answer in accepted] == [200] * 4
    assert await stand.count("message", app=tenant.app) == 4000


async def test_a_key_has_a_rate_of_its_own(stand: Stand) -> None:
    throttle = Throttle(Allowances(stand.observer), Rates(key=2.0, application=None))
    key = await stand.create(Kind.API_KEY, ApiKeyDocument(hash="", scopes=()))
    await throttle.spend_key(key, 2)
    with pytest.raises(ApiError) as refused:
        await throttle.spend_key(key)
    assert (refused.value.status, refused.value.headers) == (429, {"Retry-After": "1"})
    await Throttle(Allowances(stand.observer), Rates(key=None, application=None)).spend_key(key, 1000)


async def test_an_application_has_a_rate(client: Client, stand: Stand) -> None:
    tenant = await stand.create_tenant(accept_rate=5)
    async with connected(client.url, tenant.key) as its_client:
        answers = await asyncio.gather(*(create(its_client, tenant) for _ in range(30)))
        refused = [answer for answer in answers if answer.status == 429]
        accepted = [answer for answer in answers if answer.status == 202]
        assert len(accepted) + len(refused) == 30
        assert 5 <= len(accepted) <= 15, "a burst of a second's worth, and what came in meanwhile"
        assert refused[0].json["code"] == "rate_limited"
        async with asyncio.timeout(10):
            while (await create(its_client, tenant)).status == 429:  # noqa: ASYNC110  the bucket fills by itself
                await asyncio.sleep(int(refused[0].headers["Retry-After"]) / 4)
    assert await stand.count("message", app=tenant.app) == len(accepted) + 1
    unlimited = await create(client, await stand.create_tenant())
    assert unlimited.status == 404, "another organisation's"


async def test_a_batch_runs_up_a_debt_that_its_sources_wait_for_too(client: Client, stand: Stand) -> None:
    tenant = await stand.create_tenant(accept_rate=10)
    async with connected(client.url, tenant.key) as its_client:
        answer = await batch(its_client, tenant, *(item(n) for n in range(50)))
        assert {each["status"] for each in answer.json["data"]} == {202}
        refused = await create(its_client, tenant)
        body = stripe_event("evt_limited")
        sent = await its_client.request("POST", tenant.path_in("stripe"), data=body, headers=stripe_signed(body))
    assert (refused.status, sent.status, sent.json["code"]) == (429, 429, "rate_limited")
    assert int(sent.headers["Retry-After"]) >= 1
    assert 3 <= int(refused.headers["Retry-After"]) <= 5
