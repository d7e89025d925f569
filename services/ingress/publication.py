"""One caller's publishing to one application: whether it may, and what is to be accepted."""

from uuid import UUID

from msgspec import Struct
from msgspec.structs import replace

from libs.common.contracts.registry import RegistryObject
from libs.common.domain.facts import Origin
from libs.common.runtime.http import ApiError
from services.ingress.candidate import Candidate, Claim, KeyKind, claim, key_of
from services.ingress.directory import Directory
from services.ingress.message_in import MessageIn


class Publication(Struct, frozen=True, kw_only=True):
    """An application, and the hash of the key that publishes to it."""

    directory: Directory
    key_hash: str
    app: RegistryObject

    def authorise(self) -> ApiError | None:
        """What forbids it by the registry as it is known now."""
        try:
            key = self.directory.known_key(self.key_hash)
        except ApiError as error:
            return error
        return None if self.directory.owns(key.org, self.app.id) else no_application()

    def candidate(self, message: MessageIn, *claims: Claim) -> Candidate:
        """What is to be accepted, under these claims and that of its event id."""
        if message.event_id is not None:
            claims = (*claims, claim(self.app.id, KeyKind.EVENT_ID, (message.event_id.encode(),), message.body))
        return Candidate(
            org=self.app.org,
            app=self.app.id,
            event_type=message.event_type,
            body=message.body,
            origin=Origin.API,
            registry_version=self.directory.snapshot.version,
            authorise=self.authorise,
            content_type=message.content_type,
            channels=message.channels,
            tags=message.tags,
            event_id=message.event_id,
            ordering_key=message.ordering_key,
            deliver_at=message.deliver_at,
            keep_body=message.keep_body,
            publish=self.directory.publishes_accepted(self.app.id),
            claims=claims,
        )


def repetition(key: UUID, path: str, given: str, app: UUID, request: bytes) -> Claim:
    """The claim of an `Idempotency-Key`: of that API key and path."""
    return claim(app, KeyKind.IDEMPOTENCY_KEY, _parts(key, path, given), request)


def repetitions(key: UUID, path: str, given: str, app: UUID, request: bytes, *, places: int) -> list[Claim]:
    """The claims of the `Idempotency-Key` of a batch: one for each place in it."""
    parts = _parts(key, path, given)
    whole = claim(app, KeyKind.IDEMPOTENCY_KEY, parts, request)  # once: to hash 5 MiB takes milliseconds
    return [replace(whole, key=key_of((*parts, str(place).encode()))) for place in range(places)]


def _parts(key: UUID, path: str, given: str) -> tuple[bytes, ...]:
    return key.bytes, path.rstrip("/").encode(), given.encode("utf-8", "surrogateescape")


def no_application() -> ApiError:
    """There is none, or it is another organisation's."""
    return ApiError(404, "there is no such application")
