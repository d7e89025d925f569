"""The pages that show something."""

from collections.abc import Mapping
from typing import Any, Final

from aiohttp import web

from services.registry.portal.api import RefusedError
from services.registry.portal.visits import Visit

PAGE_SIZE: Final = "20"
MOST_EVENT_TYPES: Final = "250"
MOST_ENDPOINTS: Final = "250"
_UNDER_WAY: Final = ("waiting", "sending")
_FAILED: Final = ("exhausted", "refused", "gone", "expired", "cancelled")
_STATES: Final[Mapping[str, tuple[str, tuple[str, ...]]]] = {
    "": ("All", ()),
    "under-way": ("Under way", _UNDER_WAY),
    "succeeded": ("Succeeded", ("succeeded",)),
    "failed": ("Failed", _FAILED),
}
_NOTICES: Final = {
    "saved": "Saved.",
    "enabled": "Enabled: messages are sent to it again.",
    "disabled": "Disabled: nothing is sent to it.",
    "deleted": "The endpoint was deleted.",
    "tested": "A test message is on its way.",
    "resent": "It is being sent again.",
}


async def endpoints(visit: Visit) -> web.StreamResponse:
    """All endpoints, the newest first."""
    iterator = visit.request.query.get("iterator")
    found = await visit.api.get("app", visit.app, "endpoint", limit=PAGE_SIZE, iterator=iterator)
    return visit.page(
        "endpoints.html", endpoints=found["data"], page=_around(found, iterator), place="endpoints", notice=notice(visit)
    )


async def endpoint(visit: Visit) -> web.StreamResponse:
    """One endpoint, with its deliveries."""
    return await show_endpoint(visit, {}, {})


async def show_endpoint(visit: Visit, problems: Mapping[str, str], values: Mapping[str, str]) -> web.StreamResponse:
    """The page of the endpoint in the path; `problems` and `values` are of its form for a test message."""
    name = visit.request.match_info["endpoint"]
    found = await visit.api.get("app", visit.app, "endpoint", name)
    context = await _deliveries(visit, found)
    return visit.page(
        "endpoint.html",
        status=422 if problems else 200,
        stats=await visit.api.get("app", visit.app, "endpoint", name, "stats"),
        states=[(state, label) for state, (label, _) in _STATES.items()],
        event_types=await event_types(visit),
        problems=problems,
        values=values,
        place="endpoints",
        notice=notice(visit),
        **context,
    )


async def deliveries(visit: Visit) -> web.StreamResponse:
    """The list of an endpoint's deliveries alone, for a page that keeps it current."""
    found = await visit.api.get("app", visit.app, "endpoint", visit.request.match_info["endpoint"])
    return visit.page("deliveries.html", **await _deliveries(visit, found))


async def delivery(visit: Visit) -> web.StreamResponse:
    """One delivery: its message, its attempts, and all facts about it."""
    context = await _progress(visit)
    found = context["delivery"]
    try:
        context["endpoint"] = await visit.api.get("app", visit.app, "endpoint", found["endpointId"])
    except RefusedError as refusal:
        if refusal.status != web.HTTPNotFound.status_code:
            raise
        context["endpoint"] = None
    context["message"] = await visit.api.message(visit.app, found["messageId"])
    return visit.page("delivery.html", place="endpoints", notice=notice(visit), **context)


async def progress(visit: Visit) -> web.StreamResponse:
    """How a delivery fares, alone, for a page that keeps it current."""
    return visit.page("progress.html", **await _progress(visit))


async def messages(visit: Visit) -> web.StreamResponse:
    """All messages, the newest first."""
    iterator = visit.request.query.get("iterator")
    found = await visit.api.get(
        "app", visit.app, "msg", limit=PAGE_SIZE, iterator=iterator, with_content="false"
    )  # fmt: skip
    return visit.page("messages.html", messages=found["data"], page=_around(found, iterator), place="messages")


async def message(visit: Visit) -> web.StreamResponse:
    """One message, and where it went."""
    found = await visit.api.message(visit.app, visit.request.match_info["message"])
    sent = await visit.api.get("app", visit.app, "delivery", messageId=found["id"], limit=MOST_ENDPOINTS)
    known = await visit.api.get("app", visit.app, "endpoint", limit=MOST_ENDPOINTS)
    urls = {each["id"]: each["url"] for each in known["data"]}
    return visit.page("message.html", message=found, deliveries=sent["data"], urls=urls, place="messages")


async def event_types(visit: Visit) -> list[str]:
    """The names of the event types that a user may choose from."""
    found = await visit.api.get("event-type", limit=MOST_EVENT_TYPES)
    return [each["name"] for each in found["data"]]


def notice(visit: Visit) -> str | None:
    """What was just done, after a redirect."""
    return _NOTICES.get(visit.request.query.get("done", ""))


async def _deliveries(visit: Visit, endpoint: Mapping[str, Any]) -> dict[str, Any]:
    state = visit.request.query.get("state", "")
    iterator = visit.request.query.get("iterator")
    if state not in _STATES:
        state = ""
    found = await visit.api.get(
        "app", visit.app, "delivery", limit=PAGE_SIZE, iterator=iterator, endpointId=endpoint["id"],
        status=",".join(_STATES[state][1]) or None,
    )  # fmt: skip
    return {
        "endpoint": endpoint,
        "deliveries": found["data"],
        "page": _around(found, iterator),
        "state": state,
        "live": iterator is None,
    }


async def _progress(visit: Visit) -> dict[str, Any]:
    path = ("app", visit.app, "delivery", visit.request.match_info["delivery"])
    found = await visit.api.get(*path)
    ledger = await visit.api.get(*path, "ledger")
    attempts = await visit.api.get(
        "app", visit.app, "attempt", "msg", found["messageId"], endpoint_id=found["endpointId"]
    )
    under_way = found["status"] == "sending" or any(each["statusText"] == "sending" for each in attempts["data"])
    return {
        "delivery": found,
        "attempts": attempts["data"],
        "ledger": ledger["data"],
        "under_way": under_way or "done" in visit.request.query,
    }


def _around(found: Mapping[str, Any], iterator: str | None) -> dict[str, str | None]:
    """The iterators of the pages after and before this one, where there are such."""
    backwards = iterator is not None and iterator.startswith("-")
    more_after = backwards or not found["done"]
    more_before = not found["done"] if backwards else iterator is not None
    return {
        "next": found["iterator"] if more_after else None,
        "previous": found["prevIterator"] if more_before else None,
    }
