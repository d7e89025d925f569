"""What forms do. Each ends in a redirect, or in the form again with what is to be mended."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
from aiohttp import web

from services.registry.portal import pages
from services.registry.portal.api import RefusedError
from services.registry.portal.forms import Form, read_form
from services.registry.portal.visits import Page, Visit

_UNPROCESSABLE: Final = web.HTTPUnprocessableEntity.status_code


class _Fields(msgspec.Struct, frozen=True, kw_only=True):
    """What the form of an endpoint shows; lists without a member stand for all."""

    url: str = ""
    description: str = ""
    event_types: Sequence[str] = ()
    channels: Sequence[str] = ()

    @classmethod
    def of(cls, form: Form) -> "_Fields":
        return cls(
            url=form.text("url"),
            description=form.text("description"),
            event_types=form.words("eventTypes"),
            channels=form.words("channels"),
        )

    def document(self) -> dict[str, Any]:
        """As the API takes it."""
        return {
            "url": self.url,
            "description": self.description,
            "eventTypes": self.event_types or None,
            "channels": self.channels or None,
        }


async def new_endpoint(visit: Visit) -> web.StreamResponse:
    """The form for a new endpoint."""
    return await _form(visit, None, _Fields(), {})


async def add_endpoint(visit: Visit) -> web.StreamResponse:
    """Adds it, and shows its secret: perhaps the only time."""
    form = await read_form(visit.request)
    fields = _Fields.of(form)
    try:
        created = await visit.api.send("POST", "app", visit.app, "endpoint", body=fields.document(), once=form.once)
    except RefusedError as refusal:
        return await _form_again(visit, None, fields, refusal)
    return visit.page("secret.html", endpoint=created, secret=created["secret"], created=True, place="endpoints")


async def edit_endpoint(visit: Visit) -> web.StreamResponse:
    """The form for an endpoint that is there."""
    found = await visit.api.get(*visit.endpoint)
    fields = _Fields(
        url=found["url"],
        description=found["description"],
        event_types=found["eventTypes"] or (),
        channels=found["channels"] or (),
    )
    return await _form(visit, found["id"], fields, {})


async def save_endpoint(visit: Visit) -> web.StreamResponse:
    """Changes it; what the form does not show stays."""
    fields = _Fields.of(await read_form(visit.request))
    try:
        await visit.api.send("PATCH", *visit.endpoint, body=fields.document())
    except RefusedError as refusal:
        return await _form_again(visit, visit.request.match_info["endpoint"], fields, refusal)
    return _onward(f"/endpoints/{visit.request.match_info['endpoint']}", done="saved")


def switching(*, disabled: bool) -> Page:
    """Enables or disables an endpoint."""

    async def switch(visit: Visit) -> web.StreamResponse:
        await visit.api.send("PATCH", *visit.endpoint, body={"disabled": disabled})
        done = "disabled" if disabled else "enabled"
        return _onward(f"/endpoints/{visit.request.match_info['endpoint']}", done=done)

    return switch


async def delete_endpoint(visit: Visit) -> web.StreamResponse:
    """Deletes it."""
    await visit.api.send("DELETE", *visit.endpoint)
    return _onward("/endpoints", done="deleted")


async def test_endpoint(visit: Visit) -> web.StreamResponse:
    """Sends it an example of an event type."""
    form = await read_form(visit.request)
    name = form.text("eventType")
    try:
        await visit.api.send("POST", *visit.endpoint, "send-example", body={"eventType": name}, once=form.once)
    except RefusedError as refusal:
        if refusal.status == web.HTTPUnauthorized.status_code:
            raise
        return await pages.show_endpoint(visit, test_problem=refusal.detail, tested=name)
    return _onward(f"/endpoints/{visit.request.match_info['endpoint']}", done="tested")


async def resend(visit: Visit) -> web.StreamResponse:
    """Sends a delivery once more."""
    form = await read_form(visit.request)
    found = await visit.api.get(*visit.delivery)
    message = ("app", visit.app, "msg", found["messageId"])
    await visit.api.send("POST", *message, "endpoint", found["endpointId"], "resend", once=form.once)
    return _onward(f"/deliveries/{found['id']}", done="resent")


async def _form_again(visit: Visit, endpoint: str | None, fields: _Fields, refusal: RefusedError) -> web.StreamResponse:
    if refusal.status != _UNPROCESSABLE:
        raise refusal
    return await _form(visit, endpoint, fields, refusal.problems)


async def _form(visit: Visit, endpoint: str | None, fields: _Fields, problems: Mapping[str, str]) -> web.StreamResponse:
    known = await pages.event_types(visit)
    return visit.page(
        "endpoint_form.html",
        status=_UNPROCESSABLE if problems else 200,
        endpoint=endpoint,
        fields=fields,
        problems=problems,
        event_types=sorted({*known, *fields.event_types}),
        place="endpoints",
    )


def _onward(path: str, *, done: str) -> web.Response:
    """See what came of it; a page that is loaded again then does nothing again."""
    return web.Response(status=303, headers={"Location": f"/portal{path}?done={done}"})
