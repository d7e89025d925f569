"""What goes out: signed, retried as scheduled, ended as the receiver asks; and what the ledger says of it."""

import asyncio
import hashlib
import hmac
from datetime import datetime
from itertools import pairwise
from typing import Any

import orjson
import pytest
from standardwebhooks.webhooks import Webhook

from deploy.stack.ports import free_port
from tests.support.broker import producing
from tests.support.client import Client
from tests.support.patience import eventually
from tests.support.platform import Platform
from tests.support.receiver import Receiver, Reply

PAYLOAD = {"type": "order.completed", "data": {"order": 7}}


def kinds(facts: list[dict[str, Any]]) -> list[str]:
    return [fact["kind"] for fact in facts]


async def ended(client: Client, app: str) -> dict[str, Any]:
    """The one delivery of the application, when it is over."""
    [delivery] = await client.settled(app, 1)
    return delivery


@pytest.mark.parametrize("unset", ["0001-01-01T00:00:00Z", "0001-01-01T00:00:00+01:00"])
async def test_a_time_of_delivery_that_go_or_dotnet_has_not_set_means_now(
    client: Client, receiver: Receiver, unset: str
) -> None:
    app = await client.create_application()
    await client.create_endpoint(app, receiver.script("/", 500), retrySchedule=[0.05])
    message = await client.send(app, "order.completed", PAYLOAD, deliverAt=unset)
    assert [request.id for request in await receiver.wait_for(2)] == [message, message]
    assert (await ended(client, app))["status"] == "succeeded"
    assert (await client.get(f"/app/{app}/msg/{message}"))["deliverAt"] is None


# Signatures


async def test_a_receiver_verifies_what_it_gets_with_the_library_of_standard_webhooks(
    client: Client, receiver: Receiver
) -> None:
    app = await client.create_application()
    endpoint = await client.create_endpoint(app, receiver.url("/hooks?token=7"))
    message = await client.send(app, "order.completed", PAYLOAD)
    [received] = await receiver.wait_for(1)
    assert Webhook(endpoint.secret).verify(received.body, dict(received.headers)) == PAYLOAD
    assert (received.id, received.path, received.query) == (message, "/hooks", "token=7")
    assert received.headers["Content-Type"] == "application/json"


async def test_every_attempt_has_the_same_id_and_bytes_and_a_signature_of_its_own(
    client: Client, receiver: Receiver
) -> None:
    app = await client.create_application()
    endpoint = await client.create_endpoint(app, receiver.script("/", 500, 500), retrySchedule=[0.05, 1.1])
    await client.send(app, "order.completed", PAYLOAD)
    received = await receiver.wait_for(3)
    assert len({(request.id, request.body) for request in received}) == 1
    assert len({request.headers["webhook-timestamp"] for request in received}) > 1
    for request in received:
        assert Webhook(endpoint.secret).verify(request.body, dict(request.headers)) == PAYLOAD


async def test_the_x_webhook_profile_sends_the_simple_form(client: Client, receiver: Receiver) -> None:
    app = await client.create_application()
    endpoint = await client.create_endpoint(app, receiver.script("/", 500), profile="x-webhook")
    document = b'{"eventType":"order.completed","payload":{"total": 1.10}}'
    answer = await client.request(
        "POST", f"/api/v1/app/{app}/msg", data=document, headers={"Content-Type": "application/json"}
    )
    received = await receiver.wait_for(2)
    for request in received:
        expected = "sha256=" + hmac.new(endpoint.secret.encode(), request.body, hashlib.sha256).hexdigest()
        assert request.headers["X-Webhook-Signature"] == expected
        assert request.headers["X-Webhook-Event"] == "order.completed"
        assert "webhook-id" not in request.headers
        body = orjson.loads(request.body)
        assert (body["id"], body["event"]) == (answer.json["id"], "order.completed")
        assert datetime.fromisoformat(body["timestamp"]).tzinfo is not None
        assert request.body.endswith(b'"data":{"total": 1.10}}')
    assert len({request.body for request in received}) == 1
    assert len({request.headers["X-Webhook-Delivery"] for request in received}) == 2
    assert (await ended(client, app))["status"] == "succeeded"


# Which messages


async def test_an_endpoint_gets_its_event_types_and_channels_only(client: Client, receiver: Receiver) -> None:
    app = await client.create_application()
    await client.create_endpoint(app, receiver.url("/all"))
    await client.create_endpoint(app, receiver.url("/orders"), eventTypes=["order.completed"])
    await client.create_endpoint(app, receiver.url("/eu"), channels=["eu"])
    await client.create_endpoint(app, receiver.url("/disabled"), disabled=True)
    await client.send(app, "order.completed", {"n": 1})
    await client.send(app, "order.created", {"n": 2}, channels=["eu", "us"])
    await client.settled(app, 4)
    bodies = {path: sorted(request.body for request in receiver.got(path)) for path in ("/all", "/orders", "/eu")}
    assert bodies == {"/all": [b'{"n":1}', b'{"n":2}'], "/orders": [b'{"n":1}'], "/eu": [b'{"n":2}']}
    assert receiver.got("/disabled") == []


async def test_messages_with_an_ordering_key_reach_an_ordered_endpoint_in_order_whatever_it_answers(
    client: Client, receiver: Receiver
) -> None:
    app = await client.create_application()
    url = receiver.script("/ordered", *[500, 200, 500, 500, 200] * 6)
    await client.create_endpoint(app, url, ordered=True, retrySchedule=[0.05] * 20)
    for number in range(12):
        for key in ("a", "b", "c"):
            await client.send(app, "order.completed", {"n": number, "key": key}, orderingKey=key)
    await client.settled(app, 36)
    taken = [orjson.loads(request.body) for request in receiver.requests if request.status == 200]
    for key in ("a", "b", "c"):
        assert [body["n"] for body in taken if body["key"] == key] == list(range(12))
    tried = [orjson.loads(request.body) for request in receiver.requests]
    for key in ("a", "b", "c"):
        numbers = [body["n"] for body in tried if body["key"] == key]
        assert numbers == sorted(numbers), "nothing is even tried before what came in before it"


async def test_an_endpoint_created_before_a_message_always_gets_it(client: Client, receiver: Receiver) -> None:
    app = await client.create_application()
    for number in range(10):
        await client.create_endpoint(app, receiver.url(f"/{number}"))
        await client.send(app, "ping", {"n": number})

    # An endpoint that was created after a message was accepted, and before it was fanned out, may get it too.
    async def missing() -> set[tuple[int, bytes]]:
        owed = {(number, b'{"n":%d}' % later) for number in range(10) for later in range(number, 10)}
        return owed - {(number, request.body) for number in range(10) for request in receiver.got(f"/{number}")}

    await eventually(missing, lambda found: not found)


# Retries


async def test_a_receiver_that_recovers_gets_the_message_when_the_schedule_says(
    client: Client, receiver: Receiver
) -> None:
    app = await client.create_application()
    await client.create_endpoint(app, receiver.script("/", 503, 500), retrySchedule=[0.2, 0.5])
    await client.send(app, "ping", {})
    received = await receiver.wait_for(3)
    waits = [(later.at - earlier.at).total_seconds() for earlier, later in pairwise(received)]
    assert 0.16 <= waits[0] < 5
    assert 0.40 <= waits[1] < 5
    delivery = await ended(client, app)
    assert (delivery["status"], delivery["attempts"], delivery["failures"]) == ("succeeded", 3, 2)
    facts = await client.ledger(app, delivery["id"])
    assert kinds(facts) == [
        "DeliveryScheduled",
        *("AttemptStarted", "AttemptEnded", "RetryScheduled"),
        *("AttemptStarted", "AttemptEnded", "RetryScheduled"),
        *("AttemptStarted", "AttemptEnded"),
    ]
    assert [fact["version"] for fact in facts] == list(range(1, 10))
    assert [fact["data"]["status"] for fact in facts if fact["kind"] == "AttemptEnded"] == [503, 500, 200]


@pytest.mark.parametrize("status", [301, 408, 425, 429, 500, 503])
async def test_a_spent_schedule_exhausts_the_delivery(client: Client, receiver: Receiver, status: int) -> None:
    app = await client.create_application()
    url = receiver.script("/", then=Reply(status=status, headers={"Location": receiver.url("/elsewhere")}))
    await client.create_endpoint(app, url, retrySchedule=[0.01, 0.01])
    await client.send(app, "ping", {})
    delivery = await ended(client, app)
    assert (delivery["status"], delivery["attempts"], delivery["lastStatus"]) == ("exhausted", 3, status)
    assert len(receiver.got("/")) == 3
    assert receiver.got("/elsewhere") == [], "a redirect is never followed"


async def test_the_operational_application_is_told_of_endpoints_and_of_deliveries_that_fail(
    client: Client, receiver: Receiver
) -> None:
    told = await client.create_application(uid="operational")
    operations = await client.create_endpoint(told, receiver.script("/told"))
    app = await client.create_application(uid="customer-17")
    endpoint = await client.create_endpoint(app, receiver.script("/down", then=503), retrySchedule=[])
    message = await client.send(app, "ping", {})
    requests = await receiver.wait_for(2, path="/told")
    created, exhausted = sorted(
        (Webhook(operations.secret).verify(request.body, dict(request.headers)) for request in requests),
        key=lambda body: body["type"],
    )
    await client.delete(f"/app/{told}")
    whose = {"appId": app, "appUid": "customer-17", "endpointId": endpoint.id}
    assert created == {"type": "endpoint.created", "data": whose}
    assert exhausted["type"] == "message.attempt.exhausted"
    assert exhausted["data"].pop("lastAttempt")["responseStatusCode"] == 503
    assert exhausted["data"] == whose | {"msgId": message}


async def test_an_endpoint_without_a_schedule_is_tried_once(client: Client, receiver: Receiver) -> None:
    app = await client.create_application()
    await client.create_endpoint(app, receiver.script("/", then=500), retrySchedule=[])
    await client.send(app, "ping", {})
    delivery = await ended(client, app)
    assert (delivery["status"], delivery["attempts"]) == ("exhausted", 1)


async def test_retry_after_lengthens_a_wait(client: Client, receiver: Receiver) -> None:
    app = await client.create_application()
    await client.create_endpoint(app, receiver.script("/", Reply.retry_after("1")), retrySchedule=[0.01])
    await client.send(app, "ping", {})
    first, second = await receiver.wait_for(2)
    assert (second.at - first.at).total_seconds() >= 0.95
    delivery = await ended(client, app)
    [asked] = [fact["data"]["retryAfter"] for fact in await client.ledger(app, delivery["id"]) if fact["version"] == 3]
    assert asked == "PT1S"


@pytest.mark.parametrize(
    ("reply", "failure"),
    [
        pytest.param(Reply(reset=True), "connection_reset", id="reset"),
        pytest.param(Reply(hang=True), "timeout", id="hang"),
    ],
)
async def test_a_receiver_that_gives_no_answer_is_tried_again(
    client: Client, receiver: Receiver, reply: Reply, failure: str
) -> None:
    app = await client.create_application()
    await client.create_endpoint(app, receiver.script("/", reply), timeoutMs=1000)
    await client.send(app, "ping", {})
    delivery = await ended(client, app)
    assert (delivery["status"], delivery["attempts"]) == ("succeeded", 2)
    facts = await client.ledger(app, delivery["id"])
    first = next(fact for fact in facts if fact["kind"] == "AttemptEnded")
    assert (first["data"]["status"], first["data"]["failure"]) == (None, failure)


async def test_a_receiver_that_is_down_is_tried_to_the_end(client: Client) -> None:
    app = await client.create_application()
    await client.create_endpoint(app, f"http://127.0.0.1:{free_port()}/")
    await client.send(app, "ping", {})
    delivery = await ended(client, app)
    assert (delivery["status"], delivery["attempts"], delivery["lastStatus"]) == ("exhausted", 3, None)


async def test_a_slow_endpoint_does_not_slow_another(client: Client, receiver: Receiver) -> None:
    app = await client.create_application()
    await client.create_endpoint(app, receiver.script("/slow", then=Reply(hang=True)), timeoutMs=1000, retrySchedule=[])
    await client.create_endpoint(app, receiver.url("/fast"))
    # More than go there at once, and so soon after one another that a breaker does not open on a slow machine.
    await asyncio.gather(*(client.send(app, "ping", {"n": number}) for number in range(40)))
    await receiver.wait_for(40, "/fast", within=10)
    deliveries = await client.settled(app, 80)
    statuses = [delivery["status"] for delivery in deliveries]
    assert (statuses.count("succeeded"), statuses.count("exhausted")) == (40, 40)


# Ends


@pytest.mark.parametrize("status", [400, 401, 404, 422])
async def test_a_final_4xx_refuses_the_delivery(client: Client, receiver: Receiver, status: int) -> None:
    app = await client.create_application()
    await client.create_endpoint(app, receiver.script("/", then=status))
    await client.send(app, "ping", {})
    delivery = await ended(client, app)
    assert (delivery["status"], delivery["attempts"]) == ("refused", 1)


async def test_an_endpoint_may_have_its_4xx_tried_again(client: Client, receiver: Receiver) -> None:
    app = await client.create_application()
    await client.create_endpoint(app, receiver.script("/", 404), retryClientErrors=True)
    await client.send(app, "ping", {})
    delivery = await ended(client, app)
    assert (delivery["status"], delivery["attempts"]) == ("succeeded", 2)


async def test_410_ends_the_delivery_and_disables_the_endpoint(
    client: Client, platform: Platform, receiver: Receiver
) -> None:
    app = await client.create_application()
    endpoint = await client.create_endpoint(app, receiver.script("/", then=410))
    async with producing(platform.corner) as producer:
        outcomes = await producer.listen(producer.names.deliveries, "delivery.gone", contains=app)
        await client.send(app, "ping", {})
        delivery = await ended(client, app)
        await outcomes.wait_for(1)
    assert (delivery["status"], delivery["attempts"]) == ("gone", 1)
    await eventually(lambda: client.get(f"/app/{app}/endpoint/{endpoint.id}"), lambda found: found["disabled"])
    await client.send(app, "ping", {"to": "nobody"})
    await client.settled(app, 1)
    assert len(receiver.requests) == 1


async def test_deleting_an_endpoint_cancels_what_waits_for_it(client: Client, receiver: Receiver) -> None:
    app = await client.create_application()
    endpoint = await client.create_endpoint(app, receiver.script("/", then=500), retrySchedule=[1.0, 600])
    await client.send(app, "ping", {})
    await receiver.wait_for(1)
    await client.delete(f"/app/{app}/endpoint/{endpoint.id}")
    delivery = await ended(client, app)
    assert delivery["status"] == "cancelled"
    assert len(receiver.requests) == 1
    facts = await client.ledger(app, delivery["id"])
    assert facts[-1]["data"] == {"reason": "endpoint_deleted"}


async def test_disabling_an_endpoint_cancels_what_waits_for_it(client: Client, receiver: Receiver) -> None:
    app = await client.create_application()
    endpoint = await client.create_endpoint(app, receiver.script("/", then=500), retrySchedule=[1.0, 600])
    await client.send(app, "ping", {})
    await receiver.wait_for(1)
    await client.patch(f"/app/{app}/endpoint/{endpoint.id}", {"disabled": True})
    delivery = await ended(client, app)
    assert delivery["status"] == "cancelled"
    facts = await client.ledger(app, delivery["id"])
    assert facts[-1]["data"] == {"reason": "endpoint_disabled"}


# Telling


async def test_outcomes_are_told_on_the_broker(client: Client, platform: Platform, receiver: Receiver) -> None:
    app = await client.create_application()
    await client.create_endpoint(app, receiver.url("/takes"))
    await client.create_endpoint(app, receiver.script("/refuses", then=400))
    async with producing(platform.corner) as producer:
        outcomes = await producer.listen(producer.names.deliveries, "delivery.*", contains=app)
        message = await client.send(app, "order.completed", PAYLOAD)
        heard = await outcomes.wait_for(2)
    events = {event.routing_key: orjson.loads(event.body) for event in heard}
    assert set(events) == {"delivery.succeeded", "delivery.refused"}
    for event in events.values():
        assert (event["specversion"], event["data"]["messageId"]) == ("1.0", message)
    assert {event.content_type for event in heard} == {"application/cloudevents+json"}


async def test_accepted_messages_are_told_where_the_application_asks_for_it(client: Client, platform: Platform) -> None:
    quiet = await client.create_application()
    loud = await client.create_application(publishAccepted=True)
    async with producing(platform.corner) as producer:
        accepted = await producer.listen(producer.names.accepted)
        await client.send(quiet, "order.completed", {"n": 1})
        document = b'{"eventType":"order.completed","payload":{"total": 1.10}}'
        await client.request(
            "POST", f"/api/v1/app/{loud}/msg", data=document, headers={"Content-Type": "application/json"}
        )
        [heard] = await accepted.wait_for(1)
    event = orjson.loads(heard.body)
    assert (event["type"], event["hookledgerapp"]) == ("order.completed", loud)
    assert b'"data":{"total": 1.10}' in heard.body
