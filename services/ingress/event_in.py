"""One event of a producer's, judged: whose it is, for which application, and what is to be accepted."""

import re
from typing import Final

from libs.common.contracts.cloudevents.event import CloudEvent
from libs.common.contracts.registry import RegistryObject
from libs.common.domain.facts import Origin
from libs.common.domain.message import CONTENT_TYPE, JSON, MAX_BODY_BYTES
from libs.common.runtime.clock import now
from libs.common.runtime.http import ApiError
from services.ingress.candidate import Candidate, KeyKind, claim
from services.ingress.directory import Directory
from services.ingress.poison import PoisonError
from services.ingress.wishes import read_wishes

APPLICATION: Final = "hookledgerapp"
_EVENT_TYPE: Final = re.compile(r"[a-zA-Z0-9\-_.]{1,256}")


async def organisation_of(directory: Directory, user: str | None) -> RegistryObject:
    """The organisation that the broker's user publishes for: the broker vouches for it, the content does not.

    Raises:
        PoisonError: there is none.
        UnavailableError: it is not known here, and Postgres does not answer.
    """
    if not user:
        raise PoisonError("user_id is missing: the producer must set it to its own user of the broker")
    found = directory.snapshot.organisation_of(user)
    if found is None:
        await directory.refresh()
        found = directory.snapshot.organisation_of(user)
    if found is None:
        raise PoisonError("no organisation has this user of the broker")
    return found


async def application_of(directory: Directory, organisation: RegistryObject, event: CloudEvent) -> RegistryObject:
    """The application that the event names.

    Raises:
        PoisonError: it names none of its organisation's.
        UnavailableError: it is not known here, and Postgres does not answer.
    """
    named = event.extensions.get(APPLICATION)
    if not named:
        raise PoisonError(f"the extension attribute {APPLICATION} is missing", org=organisation.id)
    app = await directory.fresh_application(organisation.id, named)
    if app is None:
        raise PoisonError(f"the organisation has no application that {APPLICATION} names", org=organisation.id)
    return app


def candidate_of(directory: Directory, app: RegistryObject, event: CloudEvent) -> Candidate:
    """What is to be accepted.

    Raises:
        PoisonError: the event is not what a message can be made of.
    """
    try:
        wanted = read_wishes(event.extensions, now())
    except ValueError as error:
        raise PoisonError(str(error), org=app.org, app=app.id) from None
    fault = _fault(event)
    if fault is not None:
        raise PoisonError(fault, org=app.org, app=app.id)
    assert event.data is not None, "a fault"

    def authorise() -> ApiError | None:
        if directory.owns(app.org, app.id):
            return None
        return ApiError(404, "the application was deleted")

    return Candidate(
        org=app.org,
        app=app.id,
        event_type=event.type,
        body=event.data,
        origin=Origin.BROKER,
        registry_version=directory.snapshot.version,
        authorise=authorise,
        content_type=event.datacontenttype or JSON,
        channels=wanted.channels,
        tags=wanted.tags,
        ordering_key=wanted.ordering_key,
        deliver_at=wanted.deliver_at,
        keep_body=wanted.keep_body,
        publish=directory.publishes_accepted(app.id),
        claims=(claim(app.id, KeyKind.CLOUD_EVENT, (event.source.encode(), event.id.encode()), event.data),),
    )


def _fault(event: CloudEvent) -> str | None:
    if not _EVENT_TYPE.fullmatch(event.type):
        return "the type is not 1 to 256 letters, digits, full stops, hyphens or underscores"
    if event.data is None:
        return "the event has no data"
    if len(event.data) > MAX_BODY_BYTES:
        return f"the data is larger than {MAX_BODY_BYTES} bytes"
    if event.datacontenttype is not None and not CONTENT_TYPE.fullmatch(event.datacontenttype):
        return "the datacontenttype is not a content type"
    return None
