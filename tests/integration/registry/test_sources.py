"""Sources over HTTP: what describes a sender is judged when it is registered, and its secret can be rotated."""

from datetime import timedelta
from typing import Any

import asyncpg
import pytest

from deploy.stack.installation import master_key
from libs.common.contracts.registry import Kind, SourceDocument
from libs.common.domain import ids
from libs.common.domain.ids import Prefix
from libs.common.domain.signatures import standard
from libs.common.postgres.pool import open_pool
from libs.common.postgres.snapshot import RegistrySnapshot
from libs.common.runtime.clock import now
from libs.common.runtime.sealing import MasterKeys
from tests.integration.registry.conftest import Registry
from tests.support.client import Answer, Client

HMAC = {
    "name": "Acme",
    "provider": "hmac",
    "secret": "one",
    "verification": {
        "header": "X-Acme-Signature",
        "algorithm": "sha512",
        "encoding": "base64",
        "prefix": "v1=",
        "template": "{timestamp}.{body}",
        "timestampHeader": "X-Acme-Time",
        "toleranceSeconds": 60,
        "eventTypeHeader": "X-Acme-Event",
        "eventIdField": "event.id",
    },
}


async def create(api: Client, body: dict[str, Any]) -> Answer:
    app = await api.create_application()
    return await api.request("POST", f"/api/v1/app/{app}/source", json={"name": "s", **body})


def places(answer: Answer) -> list[list[str]]:
    assert answer.status == 422, answer.json
    return [each["loc"] for each in answer.json["detail"]]


# What describes a sender


async def test_a_senders_description_reads_back_as_it_was_given(api: Client) -> None:
    app = await api.create_application()
    made = await api.post(f"/app/{app}/source", HMAC)
    assert made["verification"] == HMAC["verification"]
    assert "secret" not in made
    read = await api.request("GET", f"/api/v1/app/{app}/source/{made['id']}")
    assert read.json == made
    pinned = await api.post(
        f"/app/{app}/source",
        {"name": "t", "provider": "twilio", "secret": "12345", "publicUrl": "https://hooks.example.com"},
    )
    assert (pinned["publicUrl"], pinned["verification"]) == ("https://hooks.example.com", None)


@pytest.mark.parametrize(
    ("body", "place"),
    [
        ({"provider": "hmac"}, ["verification", "header"]),
        ({"provider": "token", "verification": {"header": "Host"}}, ["verification", "header"]),
        ({"provider": "hmac", "verification": {"header": "X-S", "algorithm": "md5"}}, ["verification", "algorithm"]),
        ({"provider": "hmac", "verification": {"header": "X-S", "template": "x"}}, ["verification", "template"]),
        (
            {"provider": "hmac", "verification": {"header": "X-S", "eventTypeHeader": "a b"}},
            ["verification", "eventTypeHeader"],
        ),
        (
            {"provider": "hmac", "verification": {"header": "X-S", "toleranceSeconds": 0}},
            ["verification", "toleranceSeconds"],
        ),
        ({"provider": "stripe", "verification": {"header": "X-S"}}, ["verification"]),
        ({"provider": "github", "publicUrl": "https://a.example.com"}, ["publicUrl"]),
        ({"provider": "twilio", "publicUrl": "a.example.com"}, ["publicUrl"]),
        ({"provider": "basic", "secret": "user"}, ["secret"]),
        ({"provider": "gitlab", "secret": "whsec_short"}, ["secret"]),
        ({"provider": "standard-webhooks", "secret": "whsk_AAAA"}, ["secret"]),
        ({"provider": "slack", "secret": None}, ["secret"]),
        ({"provider": "carrier-pigeon"}, ["provider"]),
    ],
)
async def test_what_cannot_be_followed_is_422_with_its_place(
    api: Client, body: dict[str, Any], place: list[str]
) -> None:
    assert places(await create(api, {"secret": "one:two", **body})) == [["body", *place]]


async def test_a_description_can_be_changed_and_is_judged_again(api: Client) -> None:
    app = await api.create_application()
    path = f"/api/v1/app/{app}/source/{(await api.post(f'/app/{app}/source', HMAC))['id']}"
    changed = await api.request("PATCH", path, json={"verification": {"header": "X-Other"}})
    assert changed.json["verification"] == {"header": "X-Other"}
    assert places(await api.request("PATCH", path, json={"verification": None})) == [["body", "verification", "header"]]
    refused = await api.request("PUT", path, json={"name": "Acme", "provider": "hmac"})
    assert places(refused) == [["body", "verification", "header"]]
    assert (await api.request("GET", path)).json["verification"] == {"header": "X-Other"}


# Rotation


async def in_force(registry: Registry, database: str, source: str, *, after: timedelta = timedelta()) -> list[str]:
    """The secrets by which an ingress would verify, that long from now."""
    pool = await open_pool(database, "ingress", size=1)
    try:
        snapshot = RegistrySnapshot(pool, MasterKeys.parse(master_key(registry.installation.folder)))
        await snapshot.catch_up()
    finally:
        await pool.close()
    found = snapshot.get(Kind.SOURCE, ids.decode(Prefix.SOURCE, source))
    assert found is not None
    assert isinstance(found.document, SourceDocument)
    return snapshot.secrets(found, now() + after)


async def test_both_secrets_verify_for_a_day_unless_it_is_said_otherwise(
    registry: Registry, api: Client, database: str
) -> None:
    app = await api.create_application()
    source = (await api.create_source(app, "github", "one")).id
    rotated = await api.request("POST", f"/api/v1/app/{app}/source/{source}/secret/rotate", json={"secret": "two"})
    assert rotated.status == 200
    assert "secret" not in rotated.json
    assert await in_force(registry, database, source, after=timedelta(hours=23, minutes=59)) == ["two", "one"]
    assert await in_force(registry, database, source, after=timedelta(hours=24, minutes=1)) == ["two"]


async def test_two_secrets_are_the_most_and_no_grace_ends_the_old_one_at_once(
    registry: Registry, api: Client, database: str, sql: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    app = await api.create_application()
    source = (await api.create_source(app, "stripe", "whsec_1")).id
    path = f"/api/v1/app/{app}/source/{source}/secret/rotate"
    week = 7 * 24 * 3600
    assert (await api.request("POST", path, json={"secret": "whsec_2", "gracePeriodSeconds": week})).status == 200
    assert await in_force(registry, database, source, after=timedelta(days=6)) == ["whsec_2", "whsec_1"]
    assert (await api.request("POST", path, json={"secret": "whsec_3"})).status == 400
    assert (await api.request("POST", path, json={"secret": "whsec_3", "gracePeriodSeconds": 0})).status == 200
    assert await in_force(registry, database, source) == ["whsec_3"]
    owner = ids.decode(Prefix.SOURCE, source)
    assert await sql.fetchval("SELECT count(*) FROM hookledger.secret WHERE owner = $1", owner) == 1
    kinds = await sql.fetch("SELECT kind FROM hookledger.registry_fact WHERE stream = $1 ORDER BY position", owner)
    assert [row["kind"] for row in kinds] == ["SourceCreated", "SourceSecretRotated", "SourceSecretRotated"]


@pytest.mark.parametrize(
    ("body", "place"),
    [
        ({}, "secret"),
        ({"secret": "sk_live_1"}, "secret"),
        ({"secret": "whsec_2", "gracePeriodSeconds": -1}, "gracePeriodSeconds"),
        ({"secret": "whsec_2", "gracePeriodSeconds": 7 * 24 * 3600 + 1}, "gracePeriodSeconds"),
    ],
)
async def test_a_rotation_that_cannot_be_is_422(api: Client, body: dict[str, Any], place: str) -> None:
    app = await api.create_application()
    source = (await api.create_source(app, "stripe", "whsec_1")).id
    answer = await api.request("POST", f"/api/v1/app/{app}/source/{source}/secret/rotate", json=body)
    assert places(answer) == [["body", place]]


async def test_where_the_sender_takes_a_secret_a_new_one_is_made_and_shown_once(
    registry: Registry, api: Client, database: str
) -> None:
    app = await api.create_application()
    made = await api.post(f"/app/{app}/source", {"name": "s", "provider": "standard-webhooks"})
    rotated = await api.post(f"/app/{app}/source/{made['id']}/secret/rotate", {})
    assert standard.parse_secret(rotated["secret"]) != standard.parse_secret(made["secret"])
    assert await in_force(registry, database, made["id"]) == [rotated["secret"], made["secret"]]


async def test_somebody_elses_source_is_404(registry: Registry, api: Client) -> None:
    app = await api.create_application()
    source = (await api.create_source(app, "github", "one")).id
    path = f"/api/v1/app/{app}/source/{source}/secret/rotate"
    headers = {"Authorization": f"Bearer {registry.tenant()}"}
    assert (await api.request("POST", path, json={"secret": "two"}, headers=headers)).status == 404
