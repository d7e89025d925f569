"""Who calls: API keys and application tokens, and whether a route is open to them.

Nothing is remembered: a key that was revoked, a token that was ended, is unknown from the answer on, at each replica.
"""

from dataclasses import dataclass
from typing import Final, TypeAlias
from uuid import UUID

from libs.common.contracts import registry as documents
from libs.common.contracts.credentials import allows, bearer, hash_key, is_token, live
from libs.common.contracts.operations import Access, Capability
from libs.common.contracts.registry import ApiKeyDocument, Kind, Scope
from libs.common.postgres.key_use import KeyUse
from libs.common.postgres.pool import Connection, Pool
from libs.common.runtime.clock import now
from libs.common.runtime.http import ApiError

_UNKNOWN: Final = "the API key or token is not known, or no longer valid"


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKey:
    """An API key that is in force, and its organisation."""

    id: UUID
    org: UUID
    scopes: frozenset[Scope]

    @property
    def actor(self) -> str:
        """As the change history has it."""
        return f"key:{self.id}"


@dataclass(frozen=True, slots=True, kw_only=True)
class AppToken:
    """An application token that is in force, its application and its organisation."""

    id: UUID
    org: UUID
    app: UUID
    capabilities: frozenset[Capability]
    feature_flags: frozenset[str]

    @property
    def actor(self) -> str:
        """As the change history has it."""
        return f"token:{self.id}"


Caller: TypeAlias = ApiKey | AppToken


class Authentication:
    """Looks callers up.

    Args:
        pool: for look-ups outside of a transaction.
        key_use: is told of each key that was used.
    """

    def __init__(self, pool: Pool, key_use: KeyUse) -> None:
        self._pool = pool
        self._key_use = key_use

    async def caller(
        self, authorization: str | None, access: Access, *, within: "Connection | None" = None
    ) -> ApiKey | AppToken:
        """The caller with that `Authorization` header.

        Args:
            authorization: the header.
            access: the route's rule.
            within: a transaction to look in.

        Raises:
            ApiError: 401 for no key or token, an unknown or an expired one; 403 where the route is not open to it.
        """
        text = bearer(authorization)
        if text is None:
            raise _unauthenticated("there is no API key: send it as `Authorization: Bearer …`")
        connection = within or self._pool
        if is_token(text):
            token = await _find_token(connection, text)
            _check_token(token, access)
            return token
        key = await _find_key(connection, text)
        self._key_use.note(key.id)
        _check_key(key, access)
        return key


async def _find_key(connection: "Connection | Pool", text: str) -> ApiKey:
    row = await connection.fetchrow(
        """
        SELECT k.id, k.org, k.data
        FROM hookledger.registry_object k JOIN hookledger.registry_object o ON o.id = k.org
        WHERE k.kind = 'api_key' AND k.data ->> 'hash' = $1 AND k.deleted_at IS NULL AND o.deleted_at IS NULL
        """,
        hash_key(text),
    )
    document = documents.decode(Kind.API_KEY, row["data"]) if row is not None else None
    if row is None or not isinstance(document, ApiKeyDocument) or not live(document, now()):
        raise _unauthenticated(_UNKNOWN)
    return ApiKey(id=row["id"], org=row["org"], scopes=frozenset(document.scopes))


async def _find_token(connection: "Connection | Pool", text: str) -> AppToken:
    row = await connection.fetchrow(
        """
        SELECT t.id, t.org, t.app, t.capabilities, t.feature_flags
        FROM hookledger.app_token t
            JOIN hookledger.registry_object o ON o.id = t.org
            JOIN hookledger.registry_object a ON a.id = t.app
        WHERE t.hash = $1 AND t.expires_at > clock_timestamp() AND o.deleted_at IS NULL AND a.deleted_at IS NULL
        """,
        bytes.fromhex(hash_key(text)),
    )
    if row is None:
        raise _unauthenticated(_UNKNOWN)
    return AppToken(
        id=row["id"],
        org=row["org"],
        app=row["app"],
        capabilities=frozenset(Capability(name) for name in row["capabilities"]),
        feature_flags=frozenset(row["feature_flags"]),
    )


def _check_key(key: ApiKey, access: Access) -> None:
    if access.scope is None:
        raise ApiError(403, "only an application token may do this, for itself")
    if not allows(key.scopes, access.scope):
        raise ApiError(403, f"the API key lacks the scope `{access.scope}`")


def _check_token(token: AppToken, access: Access) -> None:
    if access.capability is None:
        raise ApiError(403, "an application token may not do this")
    if access.capability not in token.capabilities:
        raise ApiError(403, f"the application token lacks the capability `{access.capability}`")


def _unauthenticated(detail: str) -> ApiError:
    return ApiError(401, detail, headers={"WWW-Authenticate": "Bearer"})
