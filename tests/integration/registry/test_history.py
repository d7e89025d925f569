"""What became of messages: looked up with the official SDK, and with Hookledger's own routes."""

import base64
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

import asyncpg
import pytest
from svix.api import (
    EndpointIn,
    MessageAttemptListAttemptedMessagesOptions,
    MessageAttemptListByEndpointOptions,
    MessageAttemptListByMsgOptions,
    MessageListOptions,
    MessageStatus,
    SvixAsync,
)
from svix.exceptions import HttpError

from libs.common.domain import ids
from libs.common.domain.ids import Prefix
from libs.common.domain.outcome import Failure
from tests.integration.registry.conftest import Registry
from tests.integration.registry.history import ABANDONED, SENDING, UNKNOWN, Place, Step, accept, deliver
from tests.support.client import Client


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """An application with an endpoint."""

    place: Place
    app: str
    endpoint: str

    @property
    def receiver(self) -> UUID:
        return ids.decode(Prefix.ENDPOINT, self.endpoint)


@pytest.fixture
async def scene(registry: Registry, api: Client, svix: SvixAsync) -> Scene:
    app = await api.create_application()
    endpoint = (await svix.endpoint.create(app, EndpointIn(url="http://localhost/now", uid="receiver"))).id
    return Scene(place=Place.of(registry.organisation, app), app=app, endpoint=endpoint)


def text(message: UUID) -> str:
    return ids.encode(Prefix.MESSAGE, message)


# Messages


async def test_a_message_is_read_back_byte_for_byte(
    api: Client, scene: Scene, sql: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    body = b'{"b": 1.50,  "a": "\\u00e9", "n": 12345678901234567890123}'
    message = await accept(sql, scene.place, body, channels=["two", "one"], event_id="evt-1")
    answer = await api.request("GET", f"/api/v1/app/{scene.app}/msg/{text(message)}")
    assert b'"payload":' + body in answer.body
    found = answer.json
    assert (found["id"], found["eventId"], found["eventType"]) == (text(message), "evt-1", "order.completed")
    assert found["channels"] == ["one", "two"]
    assert (await api.get(f"/app/{scene.app}/msg/evt-1"))["id"] == text(message)
    assert (await api.get(f"/app/{scene.app}/msg/{text(message)}", with_content="false"))["payload"] == {}


@pytest.mark.parametrize("body", [b"a=1&b=2", b"[1, 2]", b"{not json", b"\xff\x00", b"", b'{"a": 1} trailing'])
async def test_what_is_not_a_json_object_is_read_back_as_base64(
    api: Client, scene: Scene, sql: "asyncpg.Connection[asyncpg.Record]", body: bytes
) -> None:
    message = await accept(sql, scene.place, body, content_type="application/x-www-form-urlencoded")
    payload = (await api.get(f"/app/{scene.app}/msg/{text(message)}"))["payload"]
    assert base64.b64decode(payload["base64"]) == body
    assert payload["contentType"] == "application/x-www-form-urlencoded"


async def test_an_erased_body_says_so(svix: SvixAsync, scene: Scene, sql: "asyncpg.Connection[asyncpg.Record]") -> None:
    message = await accept(sql, scene.place)
    await sql.execute("DELETE FROM hookledger.message_body WHERE message = $1", message)
    assert (await svix.message.get(scene.app, text(message))).payload == {"expired": True}


async def test_messages_are_listed_newest_first_and_filtered(
    svix: SvixAsync, api: Client, scene: Scene, sql: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    paid = await accept(sql, scene.place, event_type="order.paid", channels=["eu"], tags=["vip", "a"])
    sent = await accept(sql, scene.place, event_type="order.sent", channels=["us", "eu"])
    done = await accept(sql, scene.place, event_type="order.done")

    async def listed(**options: object) -> list[str]:
        found = await svix.message.list(scene.app, MessageListOptions(**options))  # type: ignore[arg-type]
        return [item.id for item in found.data]

    assert await listed() == [text(done), text(sent), text(paid)]
    assert await listed(event_types=["order.paid", "order.done"]) == [text(done), text(paid)]
    assert await listed(channel="eu") == [text(sent), text(paid)]
    assert (await listed(tag="vip"), await listed(tag="VIP")) == ([text(paid)], [])
    assert (await svix.message.get(scene.app, text(paid))).tags == ["a", "vip"]
    middle = (await svix.message.get(scene.app, text(sent))).timestamp
    assert await listed(before=middle) == [text(paid)]
    assert await listed(after=middle) == [text(done)]
    assert await listed(after=middle + timedelta(days=1)) == []
    for form in ("event_types[]=order.paid&event_types[]=order.done", "event_types[0]=order.paid,order.done"):
        page = (await api.request("GET", f"/api/v1/app/{scene.app}/msg?{form}")).json
        assert [item["id"] for item in page["data"]] == [text(done), text(paid)]

    first = await svix.message.list(scene.app, MessageListOptions(limit=2))
    rest = await svix.message.list(scene.app, MessageListOptions(limit=2, iterator=first.iterator))
    assert ([item.id for item in rest.data], first.done, rest.done) == ([text(paid)], False, True)


# Attempts


async def test_attempts_are_shown_with_what_the_receiver_said(
    svix: SvixAsync, api: Client, scene: Scene, sql: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    message = await accept(sql, scene.place)
    steps: list[Step] = [503, Failure.TIMEOUT, 200]
    await deliver(sql, scene.place, message, scene.receiver, steps, response=b"caf\xe9")

    # Since version 2 the SDK asks for no content unless told to.
    content = MessageAttemptListByMsgOptions(with_content=True)
    found = (await svix.message_attempt.list_by_msg(scene.app, text(message), content)).data
    assert [(item.status.value, item.response_status_code, item.response) for item in found] == [
        (0, 200, "caf\ufffd"),
        (2, 0, "no answer in time"),
        (2, 503, "caf\ufffd"),
    ]
    assert [item.url for item in found] == [
        "https://receiver.example/hook?token=1",
        "https://receiver.example/hook",
        "https://receiver.example/hook?token=1",
    ]
    assert {(item.msg_id, item.endpoint_id, item.response_duration_ms) for item in found} == {
        (text(message), scene.endpoint, 25)
    }
    assert [item.trigger_type.value for item in found] == [0, 0, 0]
    content_too = MessageAttemptListByEndpointOptions(with_content=True)
    by_endpoint = await svix.message_attempt.list_by_endpoint(scene.app, "receiver", content_too)
    assert by_endpoint.data == found
    without = (await svix.message_attempt.list_by_endpoint(scene.app, "receiver")).data
    assert [(item.url, item.response) for item in without] == [(item.url, "") for item in found]
    assert await svix.message_attempt.get(scene.app, text(message), found[1].id) == found[1]
    ours = await api.get(f"/app/{scene.app}/msg/{text(message)}/attempt/{found[1].id}")
    assert (ours["result"], ours["failure"], ours["statusText"]) == ("retryable", "timeout", "fail")


async def test_an_attempt_in_flight_is_sending_and_a_lost_one_has_failed(
    svix: SvixAsync, scene: Scene, sql: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    message = await accept(sql, scene.place)
    await deliver(sql, scene.place, message, scene.receiver, [ABANDONED, UNKNOWN, SENDING])
    # Since version 2 the SDK asks for no content unless told to.
    content = MessageAttemptListByMsgOptions(with_content=True)
    found = (await svix.message_attempt.list_by_msg(scene.app, text(message), content)).data
    assert [(item.status_text.value, item.url) for item in found] == [
        ("sending", "http://localhost/now"),
        ("fail", "http://localhost/now"),
        ("fail", "http://localhost/now"),
    ]
    assert "not known" in found[1].response
    assert "not sent" in found[2].response
    by_endpoint = MessageAttemptListByEndpointOptions(with_content=True)
    assert (await svix.message_attempt.list_by_endpoint(scene.app, scene.endpoint, by_endpoint)).data == found
    assert await svix.message_attempt.get(scene.app, text(message), found[0].id) == found[0]


async def test_attempts_are_filtered_and_paged(
    svix: SvixAsync, scene: Scene, sql: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    other = (await svix.endpoint.create(scene.app, EndpointIn(url="http://localhost"))).id
    message = await accept(sql, scene.place, event_type="a", channels=["eu"], tags=["vip"])
    second = await accept(sql, scene.place, event_type="b")
    await deliver(sql, scene.place, message, scene.receiver, [500, Failure.DNS, 204])
    await deliver(sql, scene.place, second, scene.receiver, [404])
    await deliver(sql, scene.place, message, ids.decode(Prefix.ENDPOINT, other), [SENDING])

    async def by_endpoint(**options: object) -> list[int]:
        chosen = MessageAttemptListByEndpointOptions(**options)  # type: ignore[arg-type]
        found = await svix.message_attempt.list_by_endpoint(scene.app, scene.endpoint, chosen)
        return [item.response_status_code for item in found.data]

    assert await by_endpoint() == [404, 204, 0, 500]
    assert await by_endpoint(status=MessageStatus.SUCCESS) == [204]
    assert await by_endpoint(status=MessageStatus.FAIL) == [404, 0, 500]
    assert await by_endpoint(status_code_class=400) == [404]
    assert await by_endpoint(status_code_class=0) == [0]
    assert await by_endpoint(event_types=["b"]) == [404]
    assert await by_endpoint(channel="eu") == await by_endpoint(tag="vip") == [204, 0, 500]
    listed = (await svix.message_attempt.list_by_endpoint(scene.app, scene.endpoint)).data
    assert await by_endpoint(before=listed[1].timestamp) == [0, 500]
    assert await by_endpoint(limit=1, iterator=listed[1].id) == [0]
    assert await by_endpoint(limit=1, iterator=f"-{listed[1].id}") == [404]

    async def by_message(**options: object) -> list[str]:
        chosen = MessageAttemptListByMsgOptions(**options)  # type: ignore[arg-type]
        found = await svix.message_attempt.list_by_msg(scene.app, text(message), chosen)
        return [item.status_text.value for item in found.data]

    assert await by_message() == ["sending", "success", "fail", "fail"]
    assert await by_message(endpoint_id="receiver") == ["success", "fail", "fail"]
    assert await by_message(status=MessageStatus.SENDING) == ["sending"]
    assert (len(await by_message(tag="vip")), await by_message(tag="other")) == (4, [])
    assert await by_message(limit=2) == ["sending", "success"]
    with pytest.raises(HttpError) as missing:
        await by_message(endpoint_id="nobody")
    assert missing.value.status_code == 404


# Messages at endpoints


async def test_a_message_lists_its_destinations_and_an_endpoint_its_messages(
    svix: SvixAsync, scene: Scene, sql: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    fates: list[tuple[list[int | str], str]] = [
        ([200], "success"),
        ([], "pending"),
        ([500], "sending"),
        ([SENDING], "sending"),
        ([404], "fail"),
        ([500, 500, 500], "fail"),
        ([410], "fail"),
    ]
    messages = [await accept(sql, scene.place, tags=[f"t{number}"]) for number in range(len(fates))]
    for message, (steps, _) in zip(messages, fates, strict=True):
        await deliver(sql, scene.place, message, scene.receiver, steps)

    listed = await svix.message_attempt.list_attempted_messages(scene.app, scene.endpoint)
    assert {item.id: item.status_text.value for item in listed.data} == {
        text(message): fate for message, (_, fate) in zip(messages, fates, strict=True)
    }
    assert [item.next_attempt is not None for item in listed.data if item.id == text(messages[2])] == [True]
    for status in list(MessageStatus)[:4]:
        found = await svix.message_attempt.list_attempted_messages(
            scene.app, scene.endpoint, MessageAttemptListAttemptedMessagesOptions(status=status)
        )
        assert {item.status for item in found.data} == {status}
    tagged = MessageAttemptListAttemptedMessagesOptions(tag="t4")
    found = await svix.message_attempt.list_attempted_messages(scene.app, scene.endpoint, tagged)
    assert [item.id for item in found.data] == [text(messages[4])]
    seen: list[str] = []
    options = MessageAttemptListAttemptedMessagesOptions(limit=2)
    while True:
        page = await svix.message_attempt.list_attempted_messages(scene.app, scene.endpoint, options)
        seen += [item.id for item in page.data]
        if page.done:
            break
        options = MessageAttemptListAttemptedMessagesOptions(limit=2, iterator=page.iterator)
    assert seen == [item.id for item in listed.data]

    (destination,) = (await svix.message_attempt.list_attempted_destinations(scene.app, text(messages[0]))).data
    assert (destination.id, destination.status_text.value) == (scene.endpoint, "success")
    await svix.endpoint.delete(scene.app, scene.endpoint)
    still = (await svix.message_attempt.list_attempted_destinations(scene.app, text(messages[0]))).data
    assert [item.id for item in still] == [scene.endpoint]


# Ours


async def test_deliveries_are_listed_filtered_and_looked_into(
    api: Client, scene: Scene, sql: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    first, second = await accept(sql, scene.place), await accept(sql, scene.place)
    good = ids.encode(Prefix.DELIVERY, await deliver(sql, scene.place, first, scene.receiver, [500, 200]))
    bad = ids.encode(Prefix.DELIVERY, await deliver(sql, scene.place, second, scene.receiver, [404]))

    async def listed(**filters: str) -> set[str]:
        return {item["id"] for item in (await api.get(f"/app/{scene.app}/delivery", **filters))["data"]}

    assert await listed() == {good, bad}
    assert await listed(messageId=text(first)) == {good}
    assert await listed(endpointId=scene.endpoint) == await listed(endpointId="receiver") == {good, bad}
    assert await listed(status="refused,exhausted") == {bad}
    found = await api.get(f"/app/{scene.app}/delivery/{good}")
    assert (found["status"], found["attempts"], found["failures"], found["lastStatus"]) == ("succeeded", 2, 1, 200)
    assert (found["messageId"], found["eventType"]) == (text(first), "order.completed")

    facts = (await api.get(f"/app/{scene.app}/delivery/{good}/ledger"))["data"]
    assert [(fact["version"], fact["kind"]) for fact in facts] == [
        (1, "DeliveryScheduled"),
        (2, "AttemptStarted"),
        (3, "AttemptEnded"),
        (4, "RetryScheduled"),
        (5, "AttemptStarted"),
        (6, "AttemptEnded"),
    ]
    attempts = {item["id"] for item in (await api.get(f"/app/{scene.app}/attempt/msg/{text(first)}"))["data"]}
    assert {fact["data"]["attemptId"] for fact in facts if "attemptId" in fact["data"]} == attempts
    assert facts[0]["data"]["messageId"] == text(first)
    assert facts[0]["endpointId"] == scene.endpoint
    assert (facts[2]["data"]["status"], facts[2]["data"]["baseDelay"]) == (500, "PT1S")


async def test_rejected_requests_are_listed_with_their_reason_and_shown_with_their_bytes(
    api: Client, scene: Scene, sql: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    source = (await api.create_source(scene.app, "github", "secret")).id
    rejected = await reject(sql, scene, source)
    (found,) = (await api.get(f"/app/{scene.app}/rejected"))["data"]
    assert (found["sourceId"], found["status"], found["reason"]) == (source, 401, "signature")
    assert (found["payload"], found["headers"], found["size"]) == ({"a": 1}, {"x": "1"}, 7)
    assert (found["messageId"], found["admittedAt"]) == (None, None)
    shown = await api.get(f"/app/{scene.app}/rejected/{rejected}")
    assert base64.b64decode(shown.pop("bodyBase64")) == b'{"a":1}'
    assert shown == found
    another = (await api.create_source(scene.app, "github", "secret")).id
    assert len((await api.get(f"/app/{scene.app}/rejected", source=source))["data"]) == 1
    assert (await api.get(f"/app/{scene.app}/rejected", source=another))["data"] == []
    assert (await api.request("GET", f"/api/v1/app/{scene.app}/rejected?source=x")).status == 422


async def test_what_was_done_with_a_rejected_request_is_in_the_trail(
    api: Client, scene: Scene, sql: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    rejected = await reject(sql, scene, (await api.create_source(scene.app, "github", "secret")).id)
    key = (await api.get("/key"))["data"][0]["id"]
    for kind in ("RejectedReverified", "RejectedAdmitted"):
        await sql.execute(
            "SELECT hookledger.record_rejected_act($1, $2, $3, $4, $5, $6)",
            ids.decode(Prefix.REJECTED, rejected),
            scene.place.org,
            scene.place.app,
            kind,
            f"key:{ids.decode(Prefix.API_KEY, key)}",
            b'{"document":{"repeated":false}}',
        )
    acts = (await api.get("/audit", object=rejected))["data"]
    assert [(act["kind"], act["version"]) for act in acts] == [("RejectedAdmitted", 2), ("RejectedReverified", 1)]
    assert {(act["objectId"], act["appId"], act["actor"]["id"]) for act in acts} == {(rejected, scene.app, key)}


async def reject(sql: "asyncpg.Connection[asyncpg.Record]", scene: Scene, source: str) -> str:
    """A rejected request to that source; its id."""
    return ids.encode(
        Prefix.REJECTED,
        await sql.fetchval(
            """
            INSERT INTO hookledger.rejected (id, org, app, source, origin, status, reason, headers, body, size, at)
            VALUES (gen_random_uuid(), $1, $2, $3, 'source', 401, 'signature', '{"x": "1"}', '{"a":1}', 7, now())
            RETURNING id
            """,
            scene.place.org,
            scene.place.app,
            ids.decode(Prefix.SOURCE, source),
        ),
    )
