"""What comes in: verified, committed once, answered; whatever is not genuine is not accepted."""

import asyncio
import secrets
from collections import Counter
from collections.abc import Callable, Sequence

import orjson
import pytest

from tests.support import senders
from tests.support.broker import cloud_event, producing
from tests.support.client import Answer, Client
from tests.support.patience import eventually
from tests.support.platform import Platform
from tests.support.receiver import Receiver

MANY = 50
STRIPE_SECRET = "whsec_5WbX5kEWLlfzsGNjH64I8lOOqUB6e8FH"
GITHUB_SECRET = "It's a Secret to Everybody"
STANDARD_SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
# Spaces, an escape and a trailing zero that no parser would write again.
PAYMENT = b'{ "id": "evt_%s",\n  "type": "payment_intent.succeeded", "data": {"amount": 42.00, "name": "Zo\\u00eb"} }\n'


def payment() -> bytes:
    return PAYMENT.replace(b"%s", secrets.token_hex(8).encode())


async def messages(client: Client, app: str) -> list[str]:
    return [message["id"] for message in (await client.get(f"/app/{app}/msg", limit="250"))["data"]]


# Providers


async def test_what_stripe_signs_is_accepted_and_delivered_byte_for_byte(client: Client, receiver: Receiver) -> None:
    app = await client.create_application()
    source = await client.create_source(app, "stripe", STRIPE_SECRET)
    await client.create_endpoint(app, receiver.url())
    body = payment()
    answer = await client.request(
        "POST", f"/in/{source.id}", data=body, headers=senders.stripe_headers(body, STRIPE_SECRET)
    )
    assert answer.status == 202
    [received] = await receiver.wait_for(1)
    assert (received.body, received.id) == (body, answer.json["id"])
    [message] = (await client.get(f"/app/{app}/msg"))["data"]
    assert message["eventType"] == "payment_intent.succeeded"


async def test_what_github_signs_is_accepted_and_delivered_byte_for_byte(client: Client, receiver: Receiver) -> None:
    app = await client.create_application()
    source = await client.create_source(app, "github", GITHUB_SECRET)
    await client.create_endpoint(app, receiver.url())
    body = b'{"ref":"refs\\/heads\\/main","forced":false}'
    headers = senders.github_headers(body, GITHUB_SECRET, event="push", delivery="72d3162e")
    answer = await client.request("POST", f"/in/{source.id}", data=body, headers=headers)
    assert answer.status == 202
    [received] = await receiver.wait_for(1)
    assert received.body == body
    [message] = (await client.get(f"/app/{app}/msg"))["data"]
    assert message["eventType"] == "push"


async def test_what_standard_webhooks_signs_is_accepted(client: Client, receiver: Receiver) -> None:
    app = await client.create_application()
    source = await client.create_source(app, "standard-webhooks", STANDARD_SECRET)
    await client.create_endpoint(app, receiver.url())
    body = b'{"type":"contact.created","data":{}}'
    headers = senders.standard_headers(body, STANDARD_SECRET, message="msg_from_elsewhere")
    answer = await client.request("POST", f"/in/{source.id}", data=body, headers=headers)
    assert answer.status == 202
    [received] = await receiver.wait_for(1)
    assert received.body == body
    assert received.id == answer.json["id"] != "msg_from_elsewhere"


async def test_what_is_forged_stale_or_altered_is_refused_and_kept(client: Client, receiver: Receiver) -> None:
    app = await client.create_application()
    source = await client.create_source(app, "stripe", STRIPE_SECRET)
    await client.create_endpoint(app, receiver.url())
    body = payment()
    genuine = senders.stripe_headers(body, STRIPE_SECRET)
    cases = {
        "forged": (body, senders.stripe_headers(body, "whsec_another"), 401),
        "altered": (body.replace(b"42", b"43"), genuine, 401),
        "unsigned": (body, {"Content-Type": "application/json"}, 401),
        "stale": (body, senders.stripe_headers(body, STRIPE_SECRET, timestamp=1_700_000_000), 400),
    }
    answers = {}
    for name, (data, headers, status) in cases.items():
        answers[name] = await client.request("POST", f"/in/{source.id}", data=data, headers=headers)
        assert answers[name].status == status, name
    assert len({answers[name].body for name in ("forged", "altered", "unsigned")}) == 1
    assert await messages(client, app) == []
    rejected = await eventually(
        lambda: client.get(f"/app/{app}/rejected"), lambda page: len(page["data"]) >= len(cases)
    )
    assert sorted(item["status"] for item in rejected["data"]) == [400, 401, 401, 401]
    assert receiver.requests == []


async def test_an_unknown_source_is_not_found(client: Client) -> None:
    answer = await client.request("POST", "/in/src_0000000000000000000000", data=b"{}")
    assert answer.status == 404


# Duplicates: many at once, over HTTP and the broker


async def at_once(send: Callable[[], object], count: int = MANY) -> Sequence[Answer]:
    return await asyncio.gather(*(send() for _ in range(count)))  # type: ignore[call-overload, no-any-return]


async def test_fifty_stripe_events_of_one_id_are_one_message(client: Client, receiver: Receiver) -> None:
    app = await client.create_application()
    source = await client.create_source(app, "stripe", STRIPE_SECRET)
    await client.create_endpoint(app, receiver.url())
    body = payment()

    async def send() -> Answer:
        headers = senders.stripe_headers(body, STRIPE_SECRET)
        return await client.request("POST", f"/in/{source.id}", data=body, headers=headers)

    await _one_message(client, receiver, app, await at_once(send), accepted=202, repeated=202)


async def test_fifty_github_deliveries_of_one_id_are_one_message(client: Client, receiver: Receiver) -> None:
    app = await client.create_application()
    source = await client.create_source(app, "github", GITHUB_SECRET)
    await client.create_endpoint(app, receiver.url())
    body = b'{"ref":"refs/heads/main"}'
    headers = senders.github_headers(body, GITHUB_SECRET, event="push", delivery="one-delivery")

    async def send() -> Answer:
        return await client.request("POST", f"/in/{source.id}", data=body, headers=headers)

    await _one_message(client, receiver, app, await at_once(send), accepted=202, repeated=202)


async def test_fifty_standard_webhooks_of_one_id_are_one_message(client: Client, receiver: Receiver) -> None:
    app = await client.create_application()
    source = await client.create_source(app, "standard-webhooks", STANDARD_SECRET)
    await client.create_endpoint(app, receiver.url())
    body = b'{"type":"contact.created"}'

    async def send() -> Answer:
        headers = senders.standard_headers(body, STANDARD_SECRET, message="msg_same")
        return await client.request("POST", f"/in/{source.id}", data=body, headers=headers)

    await _one_message(client, receiver, app, await at_once(send), accepted=202, repeated=202)


async def test_fifty_posts_under_one_idempotency_key_are_one_message(client: Client, receiver: Receiver) -> None:
    app = await client.create_application()
    await client.create_endpoint(app, receiver.url())
    document = {"eventType": "order.completed", "payload": {"order": 7}}

    async def send() -> Answer:
        return await client.request(
            "POST", f"/api/v1/app/{app}/msg", json=document, headers={"Idempotency-Key": "one-key"}
        )

    answers = await at_once(send)
    await _one_message(client, receiver, app, answers, accepted=202, repeated=202)
    assert len({answer.body for answer in answers}) == 1, "the first answer again, whole"
    other = await client.request(
        "POST",
        f"/api/v1/app/{app}/msg",
        json=document | {"payload": {"order": 8}},
        headers={"Idempotency-Key": "one-key"},
    )
    assert other.status == 409


async def test_fifty_posts_of_one_event_id_are_one_message_and_49_conflicts(client: Client, receiver: Receiver) -> None:
    app = await client.create_application()
    await client.create_endpoint(app, receiver.url())
    document = {"eventType": "order.completed", "eventId": "order-7", "payload": {"order": 7}}

    async def send() -> Answer:
        return await client.request("POST", f"/api/v1/app/{app}/msg", json=document)

    answers = await at_once(send)
    assert Counter(answer.status for answer in answers) == {202: 1, 409: MANY - 1}
    await _delivered_once(client, receiver, app)


async def test_fifty_cloud_events_of_one_source_and_id_are_one_message(
    client: Client, platform: Platform, receiver: Receiver
) -> None:
    app = await client.create_application()
    await client.create_endpoint(app, receiver.url())
    event = cloud_event(app, "order.completed", {"order": 7}, id="order-7")
    async with producing(platform.corner) as producer:
        await asyncio.gather(*(producer.publish_event(event) for _ in range(MANY)))
        # Behind them, so that all of them have been settled when it arrives.
        await producer.publish_event(cloud_event(app, "order.completed", {"order": 8}, id="order-8"))
    received = await receiver.wait_for(2)
    assert sorted(request.body for request in received) == [b'{"order":7}', b'{"order":8}']
    await client.settled(app, 2)
    assert len(await messages(client, app)) == 2
    assert len(receiver.requests) == 2


async def test_the_same_id_from_another_source_or_for_another_application_is_another_event(
    client: Client, platform: Platform, receiver: Receiver
) -> None:
    apps = [await client.create_application(), await client.create_application()]
    for app in apps:
        await client.create_endpoint(app, receiver.url(f"/{app}"))
    async with producing(platform.corner) as producer:
        for app in apps:
            for source in ("/one", "/two"):
                await producer.publish_event(cloud_event(app, "ping", {"from": source}, id="same", source=source))
    for app in apps:
        await receiver.wait_for(2, f"/{app}")
        await client.settled(app, 2)
        assert len(await messages(client, app)) == 2


async def _one_message(
    client: Client, receiver: Receiver, app: str, answers: Sequence[Answer], *, accepted: int, repeated: int
) -> None:
    """The first was accepted; the others were answered with its id, as repetitions."""
    replayed = [answer for answer in answers if answer.headers.get("Idempotent-Replayed") == "true"]
    first = [answer for answer in answers if answer not in replayed]
    assert [answer.status for answer in first] == [accepted]
    assert {answer.status for answer in replayed} == {repeated}
    assert len({answer.json["id"] for answer in answers}) == 1
    await _delivered_once(client, receiver, app)


async def _delivered_once(client: Client, receiver: Receiver, app: str) -> None:
    [message] = await messages(client, app)
    [delivery] = await client.settled(app, 1)
    assert (delivery["status"], delivery["messageId"]) == ("succeeded", message)
    assert [request.id for request in receiver.requests] == [message]


# The broker


async def test_a_producers_event_is_delivered_with_its_data_byte_for_byte(
    client: Client, platform: Platform, receiver: Receiver
) -> None:
    app = await client.create_application(uid="by-uid")
    await client.create_endpoint(app, receiver.url())
    body = (
        b'{"specversion":"1.0","id":"1","source":"/shop","type":"order.completed","hookledgerapp":"by-uid",'
        b'"data": {"total": 1.10,  "name": "Zo\\u00eb"} }'
    )
    async with producing(platform.corner) as producer:
        await producer.publish(body)
    [received] = await receiver.wait_for(1)
    assert received.body == b'{"total": 1.10,  "name": "Zo\\u00eb"}'


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        pytest.param(b"{", "application/cloudevents+json", id="not JSON"),
        pytest.param(b"[]", "application/cloudevents+json", id="no object"),
        pytest.param(b'{"specversion":"1.0"}', "application/cloudevents+json", id="attributes missing"),
        pytest.param(b"{}", "text/plain", id="another content type"),
        pytest.param(
            orjson.dumps(cloud_event("app_nowhere", "ping", {}, id="1")),
            "application/cloudevents+json",
            id="unknown application",
        ),
    ],
)
async def test_a_malformed_event_is_parked_with_its_reason_and_those_behind_it_flow(
    client: Client, platform: Platform, receiver: Receiver, body: bytes, content_type: str
) -> None:
    app = await client.create_application()
    await client.create_endpoint(app, receiver.url())
    async with producing(platform.corner) as producer:
        dead = await producer.listen(producer.names.dead)
        await producer.publish(body, content_type=content_type)
        await producer.publish_event(cloud_event(app, "ping", {"behind": True}, id=secrets.token_hex(4)))
        [received] = await receiver.wait_for(1)
        [parked] = await dead.wait_for(1)
    assert received.body == b'{"behind":true}'
    assert parked.body == body
    assert parked.headers["x-hookledger-reason"]


async def test_an_event_without_the_brokers_word_for_its_user_is_parked(
    client: Client, platform: Platform, receiver: Receiver
) -> None:
    app = await client.create_application()
    await client.create_endpoint(app, receiver.url())
    async with producing(platform.corner) as producer:
        dead = await producer.listen(producer.names.dead)
        await producer.publish(orjson.dumps(cloud_event(app, "ping", {}, id="1")), user=None)
        await dead.wait_for(1)
    assert receiver.requests == []
