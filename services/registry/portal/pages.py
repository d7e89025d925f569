"""The pages that show something."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Final

from aiohttp import web

from libs.common.runtime.clock import now
from services.registry.portal.api import RefusedError
from services.registry.portal.visits import Visit

PAGE_SIZE: Final = "20"
MOST: Final = "250"
"""How much of what the API lists by pages is looked through for names."""
PING: Final = "svix.ping"
"""An example that there is whatever event types there are."""
STATISTICS: Final = timedelta(days=7)
_STATES: Final[Mapping[str, tuple[str, tuple[str, ...]]]] = {
    "": ("All", ()),
    "under-way": ("Under way", ("waiting", "sending")),
    "succeeded": ("Succeeded", ("succeeded",)),
    "failed": ("Failed", ("exhausted", "refused", "gone", "expired", "cancelled")),
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
        "endpoints.html",
        endpoints=found["data"],
        page=_around(found, iterator),
        place="endpoints",
        notice=_notice(visit),
    )


async def endpoint(visit: Visit) -> web.StreamResponse:
    """One endpoint, with its deliveries."""
    return await show_endpoint(visit)


async def show_endpoint(visit: Visit, *, test_problem: str | None = None, tested: str = "") -> web.StreamResponse:
    """The page of the endpoint in the path.

    Args:
        visit: whose.
        test_problem: why the test message that was asked for is not sent.
        tested: its event type.
    """
    found = await visit.api.get(*visit.endpoint)
    return visit.page(
        "endpoint.html",
        status=422 if test_problem else 200,
        statistics=await _statistics(visit),
        states=[(state, label) for state, (label, _) in _STATES.items()],
        event_types=[*await event_types(visit), PING],
        test_problem=test_problem,
        tested=tested,
        place="endpoints",
        notice=_notice(visit),
        **await _deliveries(visit, found),
    )


async def secret(visit: Visit) -> web.StreamResponse:
    """The signing secret of an endpoint."""
    found = await visit.api.get(*visit.endpoint)
    key = (await visit.api.get(*visit.endpoint, "secret"))["key"]
    return visit.page("secret.html", endpoint=found, secret=key, created=False, place="endpoints")


async def deliveries(visit: Visit) -> web.StreamResponse:
    """The list of an endpoint's deliveries alone, for a page that keeps it current."""
    return visit.page("deliveries.html", **await _deliveries(visit, await visit.api.get(*visit.endpoint)))


async def delivery(visit: Visit) -> web.StreamResponse:
    """One delivery: how it fares, and its message."""
    context = await _progress(visit)
    found = context["delivery"]
    return visit.page(
        "delivery.html",
        endpoint=await _endpoint_if_any(visit, found["endpointId"]),
        message=await visit.api.message(visit.app, found["messageId"]),
        place="endpoints",
        notice=_notice(visit),
        **context,
    )


async def progress(visit: Visit) -> web.StreamResponse:
    """How a delivery fares, alone, for a page that keeps it current."""
    return visit.page("progress.html", **await _progress(visit))


async def ledger(visit: Visit) -> web.StreamResponse:
    """Every fact of a delivery, for who opens that part of its page."""
    facts = (await visit.api.get(*visit.delivery, "ledger"))["data"]
    for fact in facts:
        fact["data"] = {name: value for name, value in fact["data"].items() if value is not None}
    return visit.page("ledger.html", facts=facts)


async def messages(visit: Visit) -> web.StreamResponse:
    """All messages, the newest first."""
    iterator = visit.request.query.get("iterator")
    found = await visit.api.get("app", visit.app, "msg", limit=PAGE_SIZE, iterator=iterator, with_content="false")
    return visit.page("messages.html", messages=found["data"], page=_around(found, iterator), place="messages")


async def message(visit: Visit) -> web.StreamResponse:
    """One message, and where it went."""
    found = await visit.api.message(visit.app, visit.request.match_info["message"])
    sent = await visit.api.get("app", visit.app, "delivery", messageId=found["id"], limit=MOST)
    known = await visit.api.get("app", visit.app, "endpoint", limit=MOST)
    urls = {each["id"]: each["url"] for each in known["data"]}
    return visit.page("message.html", message=found, deliveries=sent["data"], urls=urls, place="messages")


async def event_types(visit: Visit) -> list[str]:
    """The names of the event types that a user may choose from."""
    found = await visit.api.get("event-type", limit=MOST)
    return [each["name"] for each in found["data"]]


def _notice(visit: Visit) -> str | None:
    """What was just done, after a redirect."""
    return _NOTICES.get(visit.request.query.get("done", ""))


async def _statistics(visit: Visit) -> Any:
    """How the endpoint fared; None where that takes too long to count."""
    try:
        return await visit.api.get(*visit.endpoint, "stats", since=(now() - STATISTICS).isoformat())
    except RefusedError as refusal:
        if refusal.status != web.HTTPServiceUnavailable.status_code:
            raise
        return None


async def _endpoint_if_any(visit: Visit, name: str) -> Any:
    """An endpoint; None where it was deleted."""
    try:
        return await visit.api.get("app", visit.app, "endpoint", name)
    except RefusedError as refusal:
        if refusal.status != web.HTTPNotFound.status_code:
            raise
        return None


async def _deliveries(visit: Visit, endpoint: Mapping[str, Any]) -> dict[str, Any]:
    asked = visit.request.query.get("state", "")
    state = asked if asked in _STATES else ""
    iterator = visit.request.query.get("iterator")
    found = await visit.api.get(
        "app",
        visit.app,
        "delivery",
        limit=PAGE_SIZE,
        iterator=iterator,
        endpointId=endpoint["id"],
        status=",".join(_STATES[state][1]) or None,
    )
    return {
        "endpoint": endpoint,
        "deliveries": found["data"],
        "page": _around(found, iterator),
        "state": state,
        "live": iterator is None,
    }


async def _progress(visit: Visit) -> dict[str, Any]:
    found = await visit.api.get(*visit.delivery)
    attempts = await visit.api.get(
        "app", visit.app, "attempt", "msg", found["messageId"], endpoint_id=found["endpointId"]
    )
    moving = found["status"] == "sending" or "done" in visit.request.query
    return {"delivery": found, "attempts": attempts["data"], "seconds": 1 if moving else 10}


def _around(found: Mapping[str, Any], iterator: str | None) -> dict[str, str | None]:
    """The iterators of the pages after and before this one, where there are such."""
    backwards = iterator is not None and iterator.startswith("-")
    more_after = backwards or not found["done"]
    more_before = not found["done"] if backwards else iterator is not None
    return {
        "next": found["iterator"] if more_after else None,
        "previous": found["prevIterator"] if more_before else None,
    }
