"""Who calls: API keys, and what they may do."""

from dataclasses import dataclass
from typing import Final
from uuid import UUID

from libs.common.contracts import registry as documents
from libs.common.contracts.credentials import allows, bearer, hash_key, live
from libs.common.contracts.registry import ApiKeyDocument, Kind, Scope
from libs.common.postgres.pool import Pool
from libs.common.runtime.clock import monotonic, now
from libs.common.runtime.http import ApiError

REMEMBERED_SECONDS: Final = 1.0
_REMEMBERED_KEYS: Final = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """An API key that is in force, and its organisation."""

    key: UUID
    org: UUID
    document: ApiKeyDocument


class Authentication:
    """Looks up API keys; one that was found is remembered for a second."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._remembered: dict[str, tuple[float, Caller]] = {}

    async def caller(self, authorization: str | None, needed: Scope) -> Caller:
        """The caller with that `Authorization` header.

        Raises:
            ApiError: 401 for no key, an unknown or an expired one; 403 where its scopes do not hold `needed`.
        """
        text = bearer(authorization)
        if text is None:
            raise _unauthenticated("there is no API key: send it as `Authorization: Bearer …`")
        found = await self._find(hash_key(text))
        if found is None or not live(found.document, now()):
            raise _unauthenticated("the API key is not known, or no longer valid")
        if not allows(found.document.scopes, needed):
            raise ApiError(403, f"the API key lacks the scope `{needed}`")
        return found

    async def _find(self, digest: str) -> Caller | None:
        until, caller = self._remembered.get(digest, (0.0, None))
        if caller is not None and monotonic() < until:
            return caller
        row = await self._pool.fetchrow(
            """
            SELECT k.id, k.org, k.data
            FROM hookledger.registry_object k JOIN hookledger.registry_object o ON o.id = k.org
            WHERE k.kind = 'api_key' AND k.data ->> 'hash' = $1 AND k.deleted_at IS NULL AND o.deleted_at IS NULL
            """,
            digest,
        )
        if row is None:
            self._remembered.pop(digest, None)
            return None
        document = documents.decode(Kind.API_KEY, row["data"])
        assert isinstance(document, ApiKeyDocument)
        caller = Caller(key=row["id"], org=row["org"], document=document)
        if len(self._remembered) >= _REMEMBERED_KEYS:
            self._remembered.clear()
        self._remembered[digest] = (monotonic() + REMEMBERED_SECONDS, caller)
        return caller


def _unauthenticated(detail: str) -> ApiError:
    return ApiError(401, detail, headers={"WWW-Authenticate": "Bearer"})
