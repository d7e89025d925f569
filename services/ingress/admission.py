"""Admitting what was rejected.

Beside the message, the rejected row says which one it became, and the registry's ledger who decided so.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Final
from uuid import UUID

import msgspec

from libs.common.domain import ids
from libs.common.domain.ids import Prefix
from libs.common.postgres.pool import Connection
from libs.common.postgres.registry import FactData, RejectedFact
from services.ingress.candidate import Acceptance, Accepted, Admission, Candidate, Duplicate, KeyKind

_ENCODER: Final = msgspec.json.Encoder()


async def record(connection: Connection, candidates: Sequence[Candidate], acceptances: Sequence[Acceptance]) -> None:
    """Record the admissions among these, in the transaction that accepts them."""
    for candidate, acceptance in zip(candidates, acceptances, strict=True):
        if candidate.admission is None:
            continue
        match acceptance:
            case Accepted(message=message):
                await _record(connection, candidate, candidate.admission, message.id, repeated=False)
            case Duplicate(kind=kind, first=first) if kind is not KeyKind.REJECTED:
                await _record(connection, candidate, candidate.admission, first, repeated=True)
            case _:
                pass  # it was admitted already, or may not be


async def _record(
    connection: Connection, candidate: Candidate, admission: Admission, message: UUID, *, repeated: bool
) -> None:
    await connection.execute(
        "UPDATE hookledger.rejected SET message = $2, admitted_at = clock_timestamp() WHERE id = $1",
        admission.rejected,
        message,
    )
    await record_act(
        connection,
        RejectedFact.ADMITTED,
        rejected=admission.rejected,
        org=candidate.org,
        app=candidate.app,
        actor=admission.actor,
        said={
            "message": ids.encode(Prefix.MESSAGE, message),
            "repeated": repeated,
            "rejectedAt": admission.rejected_at,
        },
    )


async def record_act(
    connection: Connection, kind: RejectedFact, *, rejected: UUID, org: UUID, app: UUID, actor: str,
    said: dict[str, str | bool | datetime],
) -> None:  # fmt: skip
    """Append what `actor` did with a rejected request to the registry's ledger."""
    await connection.execute(
        "SELECT hookledger.record_rejected_act($1, $2, $3, $4, $5, $6)",
        rejected,
        org,
        app,
        kind,
        actor,
        _ENCODER.encode(FactData(document=msgspec.Raw(_ENCODER.encode(said)))),
    )
