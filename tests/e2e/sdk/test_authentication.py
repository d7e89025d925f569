"""Authentication: tokens that let an application's user into the portal and into the API as far as it goes."""

import pytest
from svix.api import (
    ApplicationIn,
    AppPortalAccessIn,
    AppPortalCapability,
    EndpointIn,
    EventTypeIn,
    MessageIn,
    SvixAsync,
    SvixOptions,
)
from svix.api.authentication import (
    AuthenticationAppPortalAccessOptions,
    AuthenticationExpireAllOptions,
    AuthenticationLogoutOptions,
)
from svix.models import ApplicationTokenExpireIn

from tests.e2e.sdk.reference import operation
from tests.e2e.sdk.refusals import invalid, missing, refused
from tests.support.platform import Platform

NEW = EndpointIn(url="http://localhost/")


async def entered(svix: SvixAsync, platform: Platform, app: str, wanted: AppPortalAccessIn) -> SvixAsync:
    """The SDK of an application's user, given the token of app-portal access."""
    access = await svix.authentication.app_portal_access(app, wanted)
    assert access.token in access.url
    return SvixAsync(access.token, SvixOptions(server_url=platform.url))


@operation("v1.authentication.app-portal-access")
async def test_a_token_reaches_its_application_and_nothing_else(svix: SvixAsync, platform: Platform, app: str) -> None:
    user = await entered(svix, platform, app, AppPortalAccessIn())
    assert (await user.application.get(app)).id == app
    endpoint = await user.endpoint.create(app, NEW)
    assert [item.id for item in (await user.endpoint.list(app)).data] == [endpoint.id]
    await user.message.list(app)
    await user.event_type.list()

    other = await svix.application.create(ApplicationIn(name="other"))
    assert await missing(user.application.get(other.id))
    assert await missing(user.endpoint.list(other.id))
    for forbidden in (
        user.application.list(),
        user.application.create(ApplicationIn(name="mine")),
        user.application.delete(app),
        user.message.create(app, MessageIn(event_type="ping", payload={})),
        user.event_type.create(EventTypeIn(name="mine", description="")),
        user.authentication.app_portal_access(app, AppPortalAccessIn()),
    ):
        assert await refused(forbidden, 403) == "permission_denied"


@operation("v1.authentication.app-portal-access")
@pytest.mark.parametrize(
    "reading", [AppPortalAccessIn(read_only=True), AppPortalAccessIn(capabilities=[AppPortalCapability.VIEW_BASE])]
)
async def test_a_token_may_be_for_reading_only(
    svix: SvixAsync, platform: Platform, app: str, reading: AppPortalAccessIn
) -> None:
    user = await entered(svix, platform, app, reading)
    assert (await user.endpoint.list(app)).data == []
    assert await refused(user.endpoint.create(app, NEW), 403) == "permission_denied"


@operation("v1.authentication.app-portal-access")
async def test_event_types_with_a_feature_flag_are_there_for_tokens_that_have_it(
    svix: SvixAsync, platform: Platform, app: str
) -> None:
    await svix.event_type.create(EventTypeIn(name="flagged", description="", feature_flags=["beta"]))
    with_flag = await entered(svix, platform, app, AppPortalAccessIn(feature_flags=["beta"]))
    assert (await with_flag.event_type.get("flagged")).name == "flagged"
    without = await entered(svix, platform, app, AppPortalAccessIn())
    assert await missing(without.event_type.get("flagged"))
    assert "flagged" not in [item.name for item in (await without.event_type.list()).data]


@operation("v1.authentication.app-portal-access")
async def test_access_creates_the_application_that_it_brings_along(svix: SvixAsync) -> None:
    brought = AppPortalAccessIn(application=ApplicationIn(name="brought", uid="brought"))
    await svix.authentication.app_portal_access("brought", brought)
    await svix.authentication.app_portal_access("brought", AppPortalAccessIn(application=ApplicationIn(name="other")))
    assert (await svix.application.get("brought")).name == "brought"
    assert await missing(svix.authentication.app_portal_access("nowhere", AppPortalAccessIn()))


@operation("v1.authentication.app-portal-access", "idempotency-key")
async def test_access_repeated_under_one_key_is_one_token(svix: SvixAsync, app: str) -> None:
    under = AuthenticationAppPortalAccessOptions(idempotency_key="access-1")
    first = await svix.authentication.app_portal_access(app, AppPortalAccessIn(), under)
    assert await svix.authentication.app_portal_access(app, AppPortalAccessIn(), under) == first
    assert await svix.authentication.app_portal_access(app, AppPortalAccessIn()) != first


@operation("v1.authentication.app-portal-access")
async def test_a_token_lives_an_hour_to_a_week(svix: SvixAsync, app: str) -> None:
    for seconds in (3599, 7 * 24 * 3600 + 1):
        asked = svix.authentication.app_portal_access(app, AppPortalAccessIn(expiry=seconds))
        assert await invalid(asked) == [["body", "expiry"]]


@operation("logout_api_v1_auth_logout__post", "idempotency-key")
async def test_logout_ends_the_token_that_calls(svix: SvixAsync, platform: Platform, app: str) -> None:
    user = await entered(svix, platform, app, AppPortalAccessIn())
    other = await entered(svix, platform, app, AppPortalAccessIn())
    await user.authentication.logout(AuthenticationLogoutOptions(idempotency_key="logout-1"))
    assert await refused(user.endpoint.list(app), 401) == "authentication_failed"
    await other.endpoint.list(app)
    assert await refused(svix.authentication.logout(), 403) == "permission_denied"


@operation("v1.authentication.expire-all", "idempotency-key")
async def test_expire_all_ends_the_tokens_of_the_application(svix: SvixAsync, platform: Platform, app: str) -> None:
    users = [await entered(svix, platform, app, AppPortalAccessIn()) for _ in range(2)]
    elsewhere = (await svix.application.create(ApplicationIn(name="elsewhere"))).id
    stays = await entered(svix, platform, elsewhere, AppPortalAccessIn())
    under = AuthenticationExpireAllOptions(idempotency_key="expiry-1")
    await svix.authentication.expire_all(app, ApplicationTokenExpireIn(), under)
    for user in users:
        assert await refused(user.endpoint.list(app), 401) == "authentication_failed"
    await stays.endpoint.list(elsewhere)
