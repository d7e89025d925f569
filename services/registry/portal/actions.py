"""What forms do. Each ends in a redirect, or in the form again with what is to be mended."""

from collections.abc import Mapping
from typing import Any, Final

from aiohttp import web
from yarl import URL

from services.registry.portal import pages
from services.registry.portal.api import RefusedError
from services.registry.portal.visits import Page, Visit

_FIELDS: Final = ("url", "description", "eventTypes", "channels")
_UNPROCESSABLE: Final = web.HTTPUnprocessableEntity.status_code


async def new_endpoint(visit: Visit) -> web.StreamResponse:
    """The form for a new endpoint."""
    return await _form(visit, None, {}, {})


async def add_endpoint(visit: Visit) -> web.StreamResponse:
    """Adds it, and shows its secret: perhaps the only time."""
    values = await _values(visit)
    try:
        created = await visit.api.send("POST", "app", visit.app, "endpoint", body=_document(values))
    except RefusedError as refusal:
        return await _form_again(visit, None, values, refusal)
    return visit.page("created.html", endpoint=created, place="endpoints")


async def edit_endpoint(visit: Visit) -> web.StreamResponse:
    """The form for an endpoint that is there."""
    found = await visit.api.get(*_path(visit))
    lists = {name: "\n".join(found[name] or ()) for name in ("eventTypes", "channels")}
    return await _form(visit, found, {"url": found["url"], "description": found["description"], **lists}, {})


async def save_endpoint(visit: Visit) -> web.StreamResponse:
    """Changes it; what the form does not show stays."""
    values = await _values(visit)
    try:
        await visit.api.send("PATCH", *_path(visit), body=_document(values))
    except RefusedError as refusal:
        return await _form_again(visit, {"id": visit.request.match_info["endpoint"]}, values, refusal)
    return _onward("portal", "endpoints", visit.request.match_info["endpoint"], done="saved")


def switching(*, disabled: bool) -> Page:
    """Enables or disables an endpoint."""

    async def switch(visit: Visit) -> web.StreamResponse:
        await visit.api.send("PATCH", *_path(visit), body={"disabled": disabled})
        done = "disabled" if disabled else "enabled"
        return _onward("portal", "endpoints", visit.request.match_info["endpoint"], done=done)

    return switch


async def delete_endpoint(visit: Visit) -> web.StreamResponse:
    """Deletes it."""
    await visit.api.send("DELETE", *_path(visit))
    return _onward("portal", "endpoints", done="deleted")


async def test_endpoint(visit: Visit) -> web.StreamResponse:
    """Sends it an example of an event type."""
    name = str((await visit.request.post()).get("eventType", ""))
    try:
        await visit.api.send("POST", *_path(visit), "send-example", body={"eventType": name})
    except RefusedError as refusal:
        if refusal.status == web.HTTPUnauthorized.status_code:
            raise
        problems = refusal.problems if "eventType" in refusal.problems else {"eventType": refusal.detail}
        return await pages.show_endpoint(visit, problems, {"eventType": name})
    return _onward("portal", "endpoints", visit.request.match_info["endpoint"], done="tested")


async def resend(visit: Visit) -> web.StreamResponse:
    """Sends a delivery once more."""
    name = visit.request.match_info["delivery"]
    found = await visit.api.get("app", visit.app, "delivery", name)
    await visit.api.send(
        "POST", "app", visit.app, "msg", found["messageId"], "endpoint", found["endpointId"], "resend"
    )  # fmt: skip
    return _onward("portal", "deliveries", name, done="resent")


def _path(visit: Visit) -> tuple[str, ...]:
    return "app", visit.app, "endpoint", visit.request.match_info["endpoint"]


async def _values(visit: Visit) -> dict[str, str]:
    form = await visit.request.post()
    return {name: str(form.get(name, "")).strip() for name in _FIELDS}


def _document(values: Mapping[str, str]) -> dict[str, Any]:
    return {
        "url": values["url"],
        "description": values["description"],
        "eventTypes": values["eventTypes"].split() or None,
        "channels": values["channels"].split() or None,
    }


async def _form_again(
    visit: Visit, endpoint: Mapping[str, Any] | None, values: Mapping[str, str], refusal: RefusedError
) -> web.StreamResponse:
    if refusal.status != _UNPROCESSABLE:
        raise refusal
    return await _form(visit, endpoint, values, refusal.problems)


async def _form(
    visit: Visit, endpoint: Mapping[str, Any] | None, values: Mapping[str, str], problems: Mapping[str, str]
) -> web.StreamResponse:
    return visit.page(
        "endpoint_form.html",
        status=_UNPROCESSABLE if problems else 200,
        endpoint=endpoint,
        values=values,
        problems=problems,
        event_types=await pages.event_types(visit),
        place="endpoints",
    )


def _onward(*path: str, done: str) -> web.Response:
    url = URL("/").joinpath(*path).with_query(done=done)
    return web.Response(status=303, headers={"Location": str(url)})
