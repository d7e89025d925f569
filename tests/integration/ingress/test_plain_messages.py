"""Messages that come by plain requests: what answers them is cheaper, and nobody can tell but by counting.

Each request is sent twice, to two tenants who are alike: as it is, and with a field that means nothing here, with which
it goes the whole way.
"""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

import msgspec
import pytest

from deploy.stack.services import Service
from libs.common.contracts.credentials import KEY_BYTES, TOKEN_PREFIX, format_key
from libs.common.contracts.registry import EventTypeDocument, Kind, OrganisationDocument, SchemaValidation, Scope
from libs.common.postgres.key_use import KeyUse
from libs.common.postgres.migrate import epoch as ledger_epoch
from libs.common.postgres.pool import open_pool
from libs.common.postgres.snapshot import RegistrySnapshot
from libs.common.runtime.clock import now
from libs.common.runtime.express import recognise
from libs.common.runtime.sealing import MasterKeys
from services.ingress import accept
from services.ingress.accept import Acceptor, UnavailableError
from services.ingress.allowances import Allowances
from services.ingress.directory import Directory
from services.ingress.plain_messages import PlainMessages, TurnedAway, Waiting
from services.ingress.throttle import Rates, Throttle
from tests.integration.ingress.raw import request, talk
from tests.integration.ingress.stand import Stand, Tenant, cut_off, started

WHOLE_WAY: Final = {"TE": "trailers"}
MESSAGE: Final = b'{"eventType":"order.completed","payload":{ "n" : 1.0 }}'
METRICS: Final = request("/metrics", {}, method="GET")
AT_ONCE: Final = 32
RATE: Final = 20
"""So many messages a second that a replica takes more than one token at a time, and has some left."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Publisher:
    """A tenant, keys of its organisation's that may not publish, by why, and an application of others."""

    tenant: Tenant
    keys: Mapping[str, str]
    others: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A request that is sent so many times.

    Attributes:
        plain: how many of these are answered without aiohttp, where nothing speaks against it.
        status: of the last answer; None for any, the same both ways.
    """

    path: str
    headers: Mapping[str, str]
    body: bytes = MESSAGE
    times: int = 1
    plain: int = 0
    status: int | None = None


Corpus = Callable[[Publisher], dict[str, Asked]]


def taken(publisher: Publisher) -> dict[str, Asked]:
    """What is judged by what this replica knows."""
    path = publisher.tenant.path
    key = {"Authorization": f"Bearer {publisher.tenant.key}"}
    full = {
        "eventType": "a.b",
        "payload": {"é": ["\u2028", 'a: "b"']},
        "channels": ["b", "a", "b"],
        "tags": ["t"],
        "orderingKey": "k",
        "deliverAt": "2026-01-01T00:00:00+01:00",
        "payloadRetentionHours": 5,
        "application": None,
        "unknown": [{}],
    }
    raw = {"rawPayload": "<a/>", "headers": {"Content-Type": "text/xml"}}
    requests: dict[str, tuple[str, Mapping[str, str], bytes]] = {
        "by id": (path, key, MESSAGE),
        "by uid": (f"/api/v1/app/{publisher.tenant.app_uid}/msg", key, MESSAGE),
        "with a slash behind": (f"{path}/", key, MESSAGE),
        "without its content": (f"{path}?with_content=false", key, MESSAGE),
        "with its content": (f"{path}?with_content=true", key, MESSAGE),
        "with all that it may have": (path, key, json.dumps(full).encode()),
        "with another body": (path, key, json.dumps(full | {"transformationsParams": raw}).encode()),
        "with white space": (path, key, b' \n{"payload":\t{},\r\n "eventType" : "a"} '),
        "with another content type": (path, key | {"Content-Type": "text/plain"}, MESSAGE),
        "with a scheme in capitals": (path, {"AUTHORIZATION": f"BEARER  {publisher.tenant.key} "}, MESSAGE),
        "with a request id": (path, key | {"X-Request-Id": "mine-1"}, MESSAGE),
        "of 30 KB": (path, key, MESSAGE[:-2] + b',"x":"' + b"x" * 30_000 + b'"}}'),
        "with an event id": (path, key, MESSAGE[:-1] + b',"eventId":"1"}'),
        "with an idempotency key": (path, key | {"Idempotency-Key": "1"}, MESSAGE),
    }
    return {
        name: Asked(path=path, headers=headers, body=body, plain=1, status=202)
        for name, (path, headers, body) in requests.items()
    } | {
        "several": Asked(path=path, headers=key, times=3, plain=3, status=202),
        "one key again": Asked(path=path, headers=key | {"Idempotency-Key": "2"}, times=3, plain=3, status=202),
        "one key for another": Asked(
            path=path, headers=key | {"Idempotency-Key": "1"}, body=MESSAGE + b" ", plain=1, status=409
        ),
        "one event id again": Asked(
            path=path, headers=key, body=MESSAGE[:-1] + b',"eventId":"1"}', times=2, plain=2, status=409
        ),
    }


def left(publisher: Publisher) -> dict[str, Asked]:
    """What there is more to ask about, or to refuse."""
    key, path = {"Authorization": f"Bearer {publisher.tenant.key}"}, publisher.tenant.path
    uid = publisher.tenant.app_uid
    bodies = {
        "no JSON": b"{",
        "no object": b"[1]",
        "nothing in it": b"{}",
        "no payload": b'{"eventType":"a"}',
        "a payload that is no object": b'{"eventType":"a","payload":[]}',
        "a type that is no text": b'{"eventType":1,"payload":{}}',
        "a type with a space": b'{"eventType":"a b","payload":{}}',
        "a key twice": b'{"eventType":"a","payload":{"a":1,"a":2}}',
        "a key twice, a colon escaped": b'{"eventType":"a","payload":{"a":1,"\\u0061":"\\u003a"}}',
        "a lone surrogate": b'{"eventType":"a","payload":{"a":"\\ud800"}}',
        "no UTF-8": b'{"eventType":"a","payload":{"a":"\xff"}}',
        "too deep": b'{"eventType":"a","payload":{"a":' + b"[" * 70 + b"]" * 70 + b"}}",
        "too many channels": b'{"eventType":"a","payload":{},"channels":["a","b","c","d","e","f"]}',
        "too far ahead": b'{"eventType":"a","payload":{},"deliverAt":"2999-01-01T00:00:00Z"}',
    }
    headers: dict[str, tuple[Mapping[str, str], int]] = {
        "no key": ({}, 401),
        "another scheme": ({"Authorization": f"Basic {publisher.tenant.key}"}, 401),
        "an empty key": ({"Authorization": "Bearer "}, 401),
        **{f"a key, {why}": ({"Authorization": f"Bearer {text}"}, 401) for why, text in publisher.keys.items()},
        "a key, only reads": ({"Authorization": f"Bearer {publisher.keys['only reads']}"}, 403),
        "a token": ({"Authorization": f"Bearer {format_key(bytes(KEY_BYTES), TOKEN_PREFIX)}"}, 403),
        "an encoding": (key | {"Content-Encoding": "gzip"}, 415),
        "too long an idempotency key": (key | {"Idempotency-Key": "k" * 257}, 422),
        "an empty idempotency key": (key | {"Idempotency-Key": ""}, 422),
    }
    paths = {
        "an unknown application": "/api/v1/app/nobody/msg",
        "another organisation's application": f"/api/v1/app/{publisher.others}/msg",
        "no application": "/api/v1/app//msg",
        "a dot": "/api/v1/app/./msg",
        "two dots": "/api/v1/app/../msg",
        "a slash before": f"/{path}",
        "two slashes behind": f"{path}//",
        "a path behind": f"{path}/x",
        "other capitals": path.replace("/msg", "/MSG"),
        "an encoded slash": path.replace("/msg", "%2fmsg"),
        "an encoded name": f"/api/v1/app/%{ord(uid[0]):x}{uid[1:]}/msg",
        "a flag in capitals": f"{path}?with_content=TRUE",
        "a flag that is none": f"{path}?with_content=maybe",
        "a flag twice": f"{path}?with_content=true&with_content=false",
        "another parameter": f"{path}?a=b",
        "an empty query": f"{path}?",
        "absolute form": f"http://a{path}",
        "a fragment": f"{path}#a",
    }
    return (
        {name: Asked(path=path, headers=key, body=body, status=422) for name, body in bodies.items()}
        | {name: Asked(path=path, headers=given, status=status) for name, (given, status) in headers.items()}
        | {name: Asked(path=target, headers=key) for name, target in paths.items()}
    )


@pytest.fixture(scope="module")
async def publishers(stand: Stand) -> tuple[Publisher, Publisher]:
    """Two who are alike: one sends plain requests, and one sends what goes the whole way."""
    one, other = await stand.create_tenant(), await stand.create_tenant()
    return await create_publisher(stand, one, other), await create_publisher(stand, other, one)


async def create_publisher(stand: Stand, tenant: Tenant, other: Tenant) -> Publisher:
    deleted = await stand.create_key(tenant.org)
    identity = await stand.observer.fetchval(
        "SELECT id FROM hookledger.registry_object WHERE kind = 'api_key' ORDER BY registry_version DESC LIMIT 1"
    )
    await stand.delete(identity)
    keys = {
        "unknown": format_key(tenant.app.bytes * 2),
        "deleted": deleted,
        "expired": await stand.create_key(tenant.org, expires_at=now() - timedelta(seconds=1)),
        "only reads": await stand.create_key(tenant.org, Scope.READ),
    }
    return Publisher(tenant=tenant, keys=keys, others=other.app_id)


@pytest.mark.parametrize("corpus", [taken, left])
async def test_both_ways_answer_and_store_alike(
    ingress: Service, stand: Stand, publishers: tuple[Publisher, Publisher], corpus: Corpus
) -> None:
    plainly, elaborately = publishers
    for publisher in publishers:  # what a replica has never heard of it asks for, which is the whole way
        await answers(ingress, corpus(publisher)["by id"] if corpus is taken else taken(publisher)["by id"], {})
    whole_way = corpus(elaborately)
    for name, asked in corpus(plainly).items():
        before = await express(ingress)
        plain = await answers(ingress, asked, {})
        assert await express(ingress) - before == asked.plain, f"{name}: so many were answered without aiohttp"
        assert plain == await answers(ingress, whole_way[name], WHOLE_WAY), name
        assert await express(ingress) - before == asked.plain, f"{name}: more than is plain"
        assert all("\r\nServer: hookledger\r\n" in answer for answer in plain), name
        assert asked.status is None or plain[-1].startswith(f"HTTP/1.1 {asked.status} "), f"{name}: {plain[-1]}"
    assert await stored(stand, plainly.tenant) == await stored(stand, elaborately.tenant)


@pytest.mark.parametrize(("first", "second"), [({}, WHOLE_WAY), (WHOLE_WAY, {})])
async def test_a_repetition_is_recognised_whichever_way_the_first_one_came(
    ingress: Service,
    publishers: tuple[Publisher, Publisher],
    first: Mapping[str, str],
    second: Mapping[str, str],
) -> None:
    tenant = publishers[0].tenant
    headers = {"Authorization": f"Bearer {tenant.key}", "Idempotency-Key": f"either way {len(first)}"}
    said = [await talk(ingress.url, request(tenant.path, headers | dict(more), MESSAGE)) for more in (first, second)]
    assert [answer.status for answer in said] == [202, 202]
    assert said[0].json == said[1].json
    assert said[1].headers["idempotent-replayed"] == "true"


async def test_a_violated_schema_is_refused_alike_and_one_that_is_kept_is_not(ingress: Service, stand: Stand) -> None:
    document = OrganisationDocument(name="strict", schema_validation=SchemaValidation.ENFORCE)
    tenant = await stand.create_tenant(organisation=document)
    schema = msgspec.Raw(b'{"required":["n"]}')
    await stand.create(Kind.EVENT_TYPE, EventTypeDocument(schemas={"1": schema}), org=tenant.org, uid="a.b")
    headers = {"Authorization": f"Bearer {tenant.key}"}
    keeping = Asked(path=tenant.path, headers=headers, body=b'{"eventType":"a.b","payload":{"n":1}}')
    violating = Asked(path=tenant.path, headers=headers, body=b'{"eventType":"a.b","payload":{}}')
    await answers(ingress, keeping, {})
    before = await express(ingress)
    for asked, status in ((keeping, 202), (violating, 422)):
        plain, whole_way = [await answers(ingress, asked, more) for more in ({}, WHOLE_WAY)]
        assert plain == whole_way
        assert plain[0].startswith(f"HTTP/1.1 {status} ")
    assert await express(ingress) == before + 1


async def test_a_key_that_is_deleted_while_its_message_waits_is_refused(ingress: Service, stand: Stand) -> None:
    """Known here, gone there: the commit finds that the registry has moved on, and judges again."""
    tenant = await stand.create_tenant()
    asked = Asked(path=tenant.path, headers={"Authorization": f"Bearer {tenant.key}"})
    await answers(ingress, asked, {})
    identity = await stand.observer.fetchval(
        "SELECT id FROM hookledger.registry_object WHERE kind = 'api_key' AND org = $1", tenant.org
    )
    before = await express(ingress)
    await stand.delete(identity)
    [answer] = await answers(ingress, asked, {})
    assert answer.startswith("HTTP/1.1 401 ")
    assert await express(ingress) == before + 1


async def test_rates_hold_for_plain_requests_too(stand: Stand) -> None:
    tenant = await stand.create_tenant(accept_rate=RATE)
    asked = Asked(path=tenant.path, headers={"Authorization": f"Bearer {tenant.key}"})
    with started(replica := stand.replica("rates")):
        said = [await answers(replica, asked, {}) for _ in range(RATE)]
        said += await asyncio.gather(*(answers(replica, asked, {}) for _ in range(4 * RATE)))
        assert await express(replica) > 0
    heads = [answer.split()[1] for [answer] in said]
    assert set(heads) == {"202", "429"}
    assert await stand.count("message", app=tenant.app) == heads.count("202")


async def test_each_of_many_at_once_is_accepted_once(
    ingress: Service, stand: Stand, publishers: tuple[Publisher, Publisher]
) -> None:
    tenant = publishers[0].tenant
    before = await stand.count("message", app=tenant.app)
    headers = {"Authorization": f"Bearer {tenant.key}"}
    bodies = [b'{"eventType":"many.%d","payload":{"n":%d}}' % (n % 3, n) for n in range(AT_ONCE)]
    said = await asyncio.gather(*(talk(ingress.url, request(tenant.path, headers, body)) for body in bodies))
    assert [answer.json["payload"]["n"] for answer in said] == list(range(AT_ONCE))
    assert len({answer.json["id"] for answer in said}) == AT_ONCE
    assert await stand.count("message", app=tenant.app) == before + AT_ONCE
    facts = await stand.observer.fetch(
        """
        SELECT m.event_type, convert_from(f.data, 'UTF8')::jsonb ->> 'event_type' AS told
        FROM hookledger.message m JOIN hookledger.fact f ON f.stream = m.id
        WHERE m.app = $1 AND m.event_type LIKE 'many.%'
        """,
        tenant.app,
    )
    assert [fact["told"] for fact in facts] == [fact["event_type"] for fact in facts]
    assert len({fact["told"] for fact in facts}) == 3, "each message's fact is its own"


async def test_without_postgres_both_ways_are_503_and_never_2xx(stand: Stand, tenant: Tenant) -> None:
    asked = Asked(path=tenant.path, headers={"Authorization": f"Bearer {tenant.key}"})
    async with cut_off(stand, "cut-off-plain") as (replica, cut):
        assert (await answers(replica, asked, {}))[0].startswith("HTTP/1.1 202 ")
        await cut()
        before = await express(replica)
        plain, whole_way = [await answers(replica, asked, more) for more in ({}, WHOLE_WAY)]
        assert plain == whole_way
        assert plain[0].startswith("HTTP/1.1 503 ")
        assert "Retry-After: 1\r\n" in plain[0]
        assert await express(replica) == before + 1


async def test_what_finds_no_room_is_turned_away_at_once_and_what_waits_is_still_accepted(
    ingress: Service, stand: Stand, tenant: Tenant, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accept, "MAX_WAITING_MESSAGES", 2)
    head = recognise(request(tenant.path, {"Authorization": f"Bearer {tenant.key}"}, MESSAGE))
    assert head is not None
    async with taking(stand, database) as (plain, acceptor):
        waiting = [plain.take(head, MESSAGE) for _ in range(2)]
        turned_away = plain.take(head, MESSAGE)
        acceptor.batcher.stop()
        await acceptor.batcher.run()
        assert [status(each) for each in waiting] == [202, 202]
        stopped = plain.take(head, MESSAGE)
        for each in (turned_away, stopped):
            assert isinstance(each, TurnedAway)
            with pytest.raises(UnavailableError):
                each.reply()


def status(taken: Waiting | TurnedAway | None) -> int:
    """Of what is answered to one that was taken."""
    reply = None if taken is None else taken.reply()
    assert reply is not None
    return reply.status


@asynccontextmanager
async def taking(stand: Stand, database: str) -> AsyncIterator[tuple[PlainMessages, Acceptor]]:
    """What takes plain requests, in this process, and what accepts them, which does not run."""
    pool = await open_pool(database, "ingress", size=2)
    snapshot = RegistrySnapshot(pool, MasterKeys.parse(stand.replica().settings["MASTER_KEY"]))
    await snapshot.catch_up()
    async with pool.acquire() as connection:
        epoch = await ledger_epoch(connection)
    assert epoch is not None
    acceptor = Acceptor(pool, snapshot, epoch=epoch, lifetime=timedelta(hours=1), committed=lambda _: None)
    throttle = Throttle(Allowances(pool), Rates(key=None, application=None))
    try:
        yield PlainMessages(acceptor, Directory(snapshot), throttle, KeyUse(pool)), acceptor
    finally:
        await pool.close()


async def answers(ingress: Service, asked: Asked, more: Mapping[str, str]) -> list[str]:
    """The answers, without what differs from message to message."""
    data = request(asked.path, dict(asked.headers) | dict(more), asked.body)
    said = [(await talk(ingress.url, data)).text for _ in range(asked.times)]
    return [without_chance(text) for text in said]


def without_chance(text: str) -> str:
    """An answer without its message's id and the times, and the number of its request."""
    for pattern in (r"msg_\w{22}", r"\d{4}-\d\d-\d\dT[\d:.]+Z", r"(?<=Date: )[^\r]+", r"[0-9a-f]{32}-\d+"):
        text = re.sub(pattern, "…", text)
    return text


async def express(ingress: Service) -> int:
    """How many requests were answered without aiohttp."""
    text = (await talk(ingress.url, METRICS)).text
    [found] = re.findall(r"^hookledger_http_express_total (\S+)$", text, re.MULTILINE)
    return int(float(found))


async def stored(stand: Stand, tenant: Tenant) -> list[Any]:
    """A tenant's messages in the order in which they were sent, without what differs from one to the other."""
    rows = await stand.observer.fetch(
        """
        SELECT event_type, event_id, channels, tags, ordering_key, deliver_at, content_type, body, origin, source
        FROM hookledger.message JOIN hookledger.message_body ON message = id WHERE app = $1 ORDER BY id
        """,
        tenant.app,
    )
    return [tuple(row) for row in rows]
