"""Answers, and the ones that are given again: `Idempotency-Key`.

The row that claims a key is inserted in the transaction of the change, so that of many requests under one key the first
is executed and the others wait for its end. Answers are sealed, because some hold a secret.
"""

import hashlib
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final
from uuid import UUID

import msgspec
from aiohttp import web

from libs.common.postgres.pool import Connection, Pool
from libs.common.runtime.http import ApiError, json_response
from libs.common.runtime.sealing import MasterKeys, SealError

HEADER: Final = "Idempotency-Key"
REPLAYED: Final = "Idempotent-Replayed"
LONGEST_KEY: Final = 256

_ENCODER: Final = msgspec.json.Encoder()


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A status and a body."""

    status: int
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)

    def response(self) -> web.Response:
        """The answer for aiohttp."""
        if not self.body:
            return web.Response(status=self.status, headers=self.headers)
        return json_response(self.body, status=self.status, headers=self.headers)


def ok(body: Any, status: int = 200) -> Answer:
    """An answer of what msgspec encodes."""
    return Answer(status=status, body=_ENCODER.encode(body))


NO_CONTENT: Final = Answer(status=204)


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """One request under an idempotency key."""

    digest: bytes
    org: UUID
    request_hash: bytes

    @classmethod
    def of(cls, request: web.Request, body: bytes, *, key: UUID, org: UUID) -> "Claim | None":
        """The claim that a request makes, if it does.

        Raises:
            ApiError: 422, the key is unusable.
        """
        values = request.headers.getall(HEADER, [])
        if not values:
            return None
        text = values[0]
        if len(values) > 1 or not 1 <= len(text) <= LONGEST_KEY or not (text.isascii() and text.isprintable()):
            detail = f"it is one value of 1 to {LONGEST_KEY} printable ASCII characters"
            raise ApiError(422, [{"loc": ["header", HEADER.lower()], "msg": detail, "type": "value_error"}])
        scope = "\n".join((str(key), request.method, request.path.rstrip("/"), text))
        return cls(
            digest=hashlib.sha256(scope.encode("utf-8", "surrogatepass")).digest(),
            org=org,
            request_hash=hashlib.sha256(request.query_string.encode() + b"\n" + body).digest(),
        )

    async def take(self, connection: Connection, master_keys: MasterKeys, lifetime: timedelta) -> Answer | None:
        """The first answer, if the key was used within `lifetime`; else it is taken by this transaction.

        Raises:
            ApiError: 409, the key was used for another request.
        """
        taken = await connection.fetchval(
            """
            INSERT INTO hookledger.answer AS a (digest, org, request_hash, created_at)
            VALUES ($1, $2, $3, clock_timestamp())
            ON CONFLICT (digest) DO UPDATE
                SET request_hash = excluded.request_hash, status = NULL, sealed = NULL,
                    created_at = excluded.created_at
                WHERE a.created_at < clock_timestamp() - $4::interval
            RETURNING true
            """,
            self.digest,
            self.org,
            self.request_hash,
            lifetime,
        )
        if taken:
            return None
        row = await connection.fetchrow(
            "SELECT request_hash, status, sealed FROM hookledger.answer WHERE digest = $1 AND org = $2",
            self.digest,
            self.org,
        )
        if row is None or row["status"] is None:
            raise ApiError(503, "the first request under this Idempotency-Key has just failed; try again")
        if row["request_hash"] != self.request_hash:
            raise ApiError(409, "this Idempotency-Key was used for another request")
        try:
            body = master_keys.open(row["sealed"], owner=self._owner, org=self.org)
        except SealError:
            raise ApiError(
                409, "this Idempotency-Key was used, and its answer can no longer be read; use another"
            ) from None
        return Answer(status=row["status"], body=body, headers={REPLAYED: "true"})

    async def keep(self, connection: Connection, master_keys: MasterKeys, answer: Answer) -> None:
        """Store the answer, in the transaction that took the key."""
        await connection.execute(
            "UPDATE hookledger.answer SET status = $2, sealed = $3 WHERE digest = $1",
            self.digest,
            answer.status,
            master_keys.seal(answer.body, owner=self._owner, org=self.org),
        )

    @property
    def _owner(self) -> UUID:
        return UUID(bytes=self.digest[:16])


async def forget_old(pool: Pool, lifetime: timedelta) -> None:
    """Remove answers that are no longer given again."""
    await pool.execute("DELETE FROM hookledger.answer WHERE created_at < clock_timestamp() - $1::interval", lifetime)
