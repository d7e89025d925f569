"""How an endpoint is delivered to: what it says itself, what its organisation says, and what skipping takes."""

from typing import Any
from uuid import UUID

import asyncpg
import pytest

from libs.common.contracts import configuration
from libs.common.contracts.registry import (
    ApplicationDocument,
    EndpointDocument,
    Exponential,
    Kind,
    OnExhausted,
    OrganisationDocument,
    Preset,
    RegistryObject,
)
from libs.common.domain import ids
from libs.common.domain.endpoint import DEFAULT_MAX_INFLIGHT, Endpoint
from libs.common.domain.ids import Prefix
from libs.common.domain.retry import QUICK_SCHEDULE, STANDARD_SCHEDULE
from libs.common.runtime.clock import new_id, now
from tests.integration.registry.conftest import Registry
from tests.integration.registry.history import SENDING, Place, accept, deliver
from tests.support.client import Client

GROWING = {"initial": 2, "factor": 3, "max": 20, "retries": 4}


def endpoint(organisation: OrganisationDocument | None = None, *, rate: int | None = None, **fields: Any) -> Endpoint:
    """The domain's endpoint of such a document."""
    at = now()
    row = RegistryObject(
        id=new_id(),
        kind=Kind.ENDPOINT,
        org=new_id(),
        app=new_id(),
        uid=None,
        version=1,
        registry_version=1,
        created_at=at,
        updated_at=at,
        deleted_at=None,
        document=EndpointDocument(url="https://a.example/", **fields),
    )
    application = ApplicationDocument(name="a", throttle_rate=rate)
    return configuration.endpoint(row, organisation or OrganisationDocument(name="o"), application, {})


def test_a_schedule_is_a_list_a_name_or_a_rule() -> None:
    assert endpoint().retry.schedule == STANDARD_SCHEDULE
    assert endpoint(retry_schedule=Preset.QUICK).retry.schedule == QUICK_SCHEDULE
    assert endpoint(retry_schedule=()).retry.schedule == ()
    grown = endpoint(retry_schedule=Exponential(initial=2, factor=3, max=20, retries=4)).retry.schedule
    assert [wait.total_seconds() for wait in grown] == [2, 6, 18, 20]


def test_what_an_endpoint_does_not_say_its_organisation_does() -> None:
    organisation = OrganisationDocument(
        name="o", retry_schedule=Preset.QUICK, retry_jitter=0, max_age=3600, timeout_ms=2000, retry_client_errors=True
    )
    inherited = endpoint(organisation)
    assert inherited.retry.schedule == QUICK_SCHEDULE
    assert (inherited.retry.jitter_share, inherited.retry.max_age.total_seconds()) == (0, 3600)
    assert (inherited.timeout.total_seconds(), inherited.retry.retry_client_errors) == (2, True)
    own = endpoint(organisation, retry_schedule=(1.0,), retry_jitter=0.5, max_age=60, timeout_ms=1000)
    assert [wait.total_seconds() for wait in own.retry.schedule] == [1]
    assert (own.retry.jitter_share, own.retry.max_age.total_seconds(), own.timeout.total_seconds()) == (0.5, 60, 1)


def test_an_endpoint_may_have_its_own_number_in_flight() -> None:
    assert endpoint().max_inflight == DEFAULT_MAX_INFLIGHT
    assert endpoint(max_inflight=4).max_inflight == 4


def test_only_an_ordered_endpoint_holds() -> None:
    assert endpoint(ordered=True, on_exhausted=OnExhausted.HOLD).retry.holds
    assert not endpoint(on_exhausted=OnExhausted.HOLD).retry.holds


def test_whoever_has_a_rate_or_an_order_begins_nothing_at_once() -> None:
    assert endpoint().unhindered
    assert not endpoint(throttle_rate=5).unhindered
    assert not endpoint(rate=5).unhindered
    assert not endpoint(ordered=True).unhindered


async def test_policies_are_written_read_back_and_patched(api: Client) -> None:
    app = await api.create_application()
    said = {
        "retrySchedule": GROWING,
        "retryJitter": 0.1,
        "maxAge": 7200,
        "ordered": True,
        "onExhausted": "hold",
        "timeoutMs": 5000,
        "throttleRate": 50,
        "maxInflight": 4,
    }
    made = await api.post(f"/app/{app}/endpoint", {"url": "http://localhost", **said})
    assert {name: made[name] for name in said} == said
    path = f"/app/{app}/endpoint/{made['id']}"
    patched = await api.patch(path, {"retrySchedule": "quick", "ordered": False, "maxAge": None, "maxInflight": None})
    assert (patched["retrySchedule"], patched["ordered"], patched["maxAge"]) == ("quick", False, None)
    assert (patched["onExhausted"], patched["retryJitter"], patched["maxInflight"]) == ("hold", 0.1, None)
    assert (await api.get(path))["retrySchedule"] == "quick"


async def test_an_applications_limits_are_written_read_back_and_patched(api: Client) -> None:
    said = {"throttleRate": 50, "maxInflight": 200}
    made = await api.post("/app", {"name": "limited", **said})
    path = f"/app/{made['id']}"
    assert {name: made[name] for name in said} == said
    assert {name: (await api.patch(path, {"name": "renamed"}))[name] for name in said} == said
    assert (await api.patch(path, {"maxInflight": None}))["maxInflight"] is None
    refused = await api.request("PATCH", f"/api/v1{path}", json={"maxInflight": 0})
    assert refused.status == 422


async def test_an_organisations_policies_are_written_and_read_back(api: Client) -> None:
    said = {"retrySchedule": GROWING, "retryJitter": 0.5, "timeoutMs": 2000, "maxAge": 86400}
    changed = await api.patch("/settings", said)
    assert {name: changed[name] for name in said} == said
    assert {name: (await api.get("/settings"))[name] for name in said} == said


async def test_skipping_takes_a_delivery_of_ones_own_that_is_not_over(
    registry: Registry, api: Client, sql: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    app = await api.create_application()
    made = await api.post(f"/app/{app}/endpoint", {"url": "http://localhost"})
    place = Place.of(registry.organisation, app)
    receiver: UUID = ids.decode(Prefix.ENDPOINT, made["id"])
    open_one = await deliver(sql, place, await accept(sql, place, b"{}"), receiver, [SENDING])
    over = await deliver(sql, place, await accept(sql, place, b"{}"), receiver, [200])
    for _ in range(2):
        answer = await api.request("POST", f"/api/v1/app/{app}/delivery/{ids.encode(Prefix.DELIVERY, open_one)}/skip")
        assert answer.status == 202
    asked = await sql.fetch("SELECT delivery, actor FROM hookledger.skip_request")
    assert [(row["delivery"], row["actor"][:4]) for row in asked] == [(open_one, "key:")]
    refused = await api.request("POST", f"/api/v1/app/{app}/delivery/{ids.encode(Prefix.DELIVERY, over)}/skip")
    assert refused.status == 409
    other = await api.create_application()
    for path in (
        f"/api/v1/app/{other}/delivery/{ids.encode(Prefix.DELIVERY, open_one)}/skip",
        f"/api/v1/app/{app}/delivery/x/skip",
    ):
        assert (await api.request("POST", path)).status == 404


@pytest.mark.parametrize("retries", [1, 100])
def test_an_exponential_schedule_never_waits_longer_than_its_cap(retries: int) -> None:
    waits = configuration.schedule(Exponential(initial=0.1, factor=100, max=30 * 24 * 3600, retries=retries))
    assert len(waits) == retries
    assert max(waits).total_seconds() <= 30 * 24 * 3600
