"""Who is asking, and for what: look-ups in the registry's snapshot, which is caught up before anything is unknown."""

import asyncio
from contextlib import suppress
from typing import Final, Generic, TypeVar
from uuid import UUID

import asyncpg

from libs.common.contracts.credentials import allows, bearer, hash_key, is_token, live
from libs.common.contracts.registry import ApiKeyDocument, ApplicationDocument, Kind, RegistryObject, Scope
from libs.common.domain import ids
from libs.common.domain.ids import Prefix
from libs.common.postgres.pool import CONNECTION_ERRORS
from libs.common.postgres.snapshot import RegistrySnapshot
from libs.common.runtime.clock import now
from libs.common.runtime.http import ApiError
from services.ingress.accept import UnavailableError

Asked = TypeVar("Asked")
Found = TypeVar("Found")
_UNKNOWN_KEY: Final = "a valid API key is needed, as Authorization: Bearer …"


class OfVersion(Generic[Asked, Found]):
    """What was found in the snapshot, for as long as that has its version: there are only so many things to find."""

    def __init__(self, snapshot: RegistrySnapshot) -> None:
        self._snapshot = snapshot
        self._version = snapshot.version
        self._found: dict[Asked, Found] = {}

    def get(self, asked: Asked) -> Found | None:
        """What is known of it now."""
        if self._version != self._snapshot.version:
            self._version = self._snapshot.version
            self._found.clear()
        return self._found.get(asked)

    def keep(self, asked: Asked, found: Found) -> None:
        """This was just found, after `get` had nothing."""
        self._found[asked] = found


class Directory:
    """Look-ups as of the snapshot; `refresh` brings what was acknowledged before it was called."""

    def __init__(self, snapshot: RegistrySnapshot) -> None:
        self.snapshot = snapshot
        self._reading = asyncio.Lock()
        self._next: asyncio.Task[None] | None = None
        self._keys: OfVersion[tuple[str, Scope], RegistryObject] = OfVersion(snapshot)
        self._applications: OfVersion[tuple[UUID, str], RegistryObject] = OfVersion(snapshot)

    async def refresh(self) -> None:
        """Catch up by a read that begins after this call; a crowd of callers shares one.

        Raises:
            UnavailableError: Postgres does not answer.
        """
        if self._next is None:
            self._next = asyncio.create_task(self._read())
        try:
            await asyncio.shield(self._next)
        except (*CONNECTION_ERRORS, asyncpg.PostgresError) as error:
            raise UnavailableError(str(error) or type(error).__name__) from error

    async def _read(self) -> None:
        async with self._reading:
            self._next = None  # the read begins: who comes now needs another
            await self.snapshot.catch_up()

    async def key_hash(self, authorization: str | None, needed: Scope = Scope.PUBLISH) -> str:
        """The hash of the key in an `Authorization` header, if it may do what is needed.

        Raises:
            ApiError: 401 or 403.
            UnavailableError: the key is not known here, and Postgres does not answer.
        """
        text = bearer(authorization)
        if text is None:
            raise ApiError(401, _UNKNOWN_KEY)
        if is_token(text):
            raise ApiError(403, "an application token may not publish messages")
        digest = hash_key(text)
        if self.snapshot.api_key(digest) is None:
            await self.refresh()
        self.known_key(digest, needed)
        return digest

    def known_key(self, digest: str, needed: Scope = Scope.PUBLISH) -> RegistryObject:
        """The key with that hash, if it may do what is needed.

        Raises:
            ApiError: 401 or 403.
        """
        found = self._keys.get((digest, needed))
        if found is not None:
            return found
        key = self.snapshot.api_key(digest)
        if key is None or self.snapshot.get(Kind.ORGANISATION, key.org) is None:
            raise ApiError(401, _UNKNOWN_KEY)
        assert isinstance(key.document, ApiKeyDocument)
        if not live(key.document, now()):
            raise ApiError(401, _UNKNOWN_KEY)
        if not allows(key.document.scopes, needed):
            raise ApiError(403, f"the API key lacks the scope `{needed}`")
        if key.document.expires_at is None:  # what ends by itself is looked at each time
            self._keys.keep((digest, needed), key)
        return key

    def application(self, org: UUID, text: str) -> RegistryObject | None:
        """The organisation's application with that id or uid."""
        found = self._applications.get((org, text))
        if found is None:
            found = self._look_up(org, text)
            if found is not None:
                self._applications.keep((org, text), found)
        return found

    def _look_up(self, org: UUID, text: str) -> RegistryObject | None:
        """By id before uid, as the registry does: nobody's uid stands for another application."""
        with suppress(ids.BadIdError):
            found = self.snapshot.get(Kind.APPLICATION, ids.decode(Prefix.APPLICATION, text))
            if found is not None and found.org == org:
                return found
        return self.snapshot.find(Kind.APPLICATION, org, text)

    def known_application(self, identity: UUID | None) -> RegistryObject:
        """The application with that id.

        Raises:
            ApiError: 404.
        """
        found = None if identity is None else self.snapshot.get(Kind.APPLICATION, identity)
        if found is None:
            raise ApiError(404, "there is no such application")
        return found

    def owns(self, org: UUID, app: UUID) -> bool:
        """Whether the organisation has that application."""
        found = self.snapshot.get(Kind.APPLICATION, app)
        return found is not None and found.org == org

    async def fresh_application(self, org: UUID, text: str) -> RegistryObject | None:
        """As `application`, having caught up where it is unknown.

        Raises:
            UnavailableError: Postgres does not answer.
        """
        found = self.application(org, text)
        if found is None:
            await self.refresh()
            found = self.application(org, text)
        return found

    async def source(self, text: str) -> RegistryObject:
        """The source with that id, in an application that exists.

        Raises:
            ApiError: 404.
            UnavailableError: it is not known here, and Postgres does not answer.
        """
        try:
            identity = ids.decode(Prefix.SOURCE, text)
        except ids.BadIdError:
            raise _no_source() from None
        if self.snapshot.get(Kind.SOURCE, identity) is None:
            await self.refresh()
        return self.known_source(identity)

    def known_source(self, identity: UUID) -> RegistryObject:
        """The source with that id.

        Raises:
            ApiError: 404.
        """
        found = self.snapshot.get(Kind.SOURCE, identity)
        if (
            found is None
            or found.app is None
            or self.snapshot.get(Kind.APPLICATION, found.app) is None
            or self.snapshot.get(Kind.ORGANISATION, found.org) is None
        ):
            raise _no_source()
        return found

    def publishes_accepted(self, app: UUID) -> bool:
        """Whether the application asks for its accepted messages on the broker."""
        found = self.snapshot.get(Kind.APPLICATION, app)
        return found is not None and isinstance(found.document, ApplicationDocument) and found.document.publish_accepted


def _no_source() -> ApiError:
    return ApiError(404, "there is no such source")
