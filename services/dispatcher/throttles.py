"""The accounts of throttles, in Postgres: one for each endpoint and application with a rate, over all dispatchers."""

from collections.abc import Collection, Mapping
from datetime import datetime
from uuid import UUID

from libs.common.domain.throttle import LONGEST_PROMISE, Throttle
from libs.common.postgres.pool import Connection


async def lock(
    connection: Connection, rates: Mapping[UUID, int], due_since: Mapping[UUID, datetime], now: datetime
) -> dict[UUID, Throttle]:
    """The accounts of these owners as of now, locked in the order of their ids until the transaction ends.

    Args:
        connection: in a transaction that waits for no lane from here on.
        rates: sends per second, by endpoint or application.
        due_since: since when something of theirs has been due, by the same.
        now: the database's time.
    """
    if not rates:
        return {}
    rows = await connection.fetch(
        """
        INSERT INTO hookledger.throttle AS t (owner, spent_until, promised_until)
        SELECT u.owner, $2, $2 FROM unnest($1::uuid[]) AS u (owner) ORDER BY u.owner
        ON CONFLICT (owner) DO UPDATE SET owner = t.owner
        RETURNING owner, spent_until, promised_until
        """,
        sorted(rates),
        now - LONGEST_PROMISE,  # one that is new has spent nothing
    )
    return {
        row["owner"]: Throttle(
            rate=rates[row["owner"]], spent_until=row["spent_until"], promised_until=row["promised_until"]
        ).looked_at(now, due_since[row["owner"]])
        for row in rows
    }


async def save(connection: Connection, throttles: Mapping[UUID, Throttle]) -> None:
    """Write accounts that this transaction has locked."""
    if throttles:
        await connection.execute(
            """
            UPDATE hookledger.throttle t SET spent_until = u.spent_until, promised_until = u.promised_until
            FROM unnest($1::uuid[], $2::timestamptz[], $3::timestamptz[]) AS u (owner, spent_until, promised_until)
            WHERE t.owner = u.owner
            """,
            list(throttles),
            [throttle.spent_until for throttle in throttles.values()],
            [throttle.promised_until for throttle in throttles.values()],
        )


async def forget(connection: Connection, owners: Collection[UUID]) -> None:
    """Remove the accounts of owners that are gone."""
    if owners:
        await connection.execute("DELETE FROM hookledger.throttle WHERE owner = ANY($1)", list(owners))
