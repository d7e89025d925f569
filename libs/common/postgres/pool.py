"""Connections to Postgres, with the service's role, pinned plans and bounded waits."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final, Literal, TypeAlias

import asyncpg
from asyncpg.pool import PoolAcquireContext, PoolConnectionProxy

from libs.common.postgres.migrate import SchemaError, check_schema
from libs.common.runtime import clock
from libs.common.runtime.logs import logger
from libs.common.runtime.metrics import POOL_BUSY, POOL_MOST, POOL_WAIT_SECONDS

_LOG: Final = logger("postgres")
Service = Literal["ingress", "dispatcher", "registry"]
Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record] | PoolConnectionProxy[asyncpg.Record]"
Pool: TypeAlias = "asyncpg.Pool[asyncpg.Record]"

PROJECTION: Final = 1
SEARCH_PATH: Final = f"hookledger, projection_{PROJECTION}, pg_catalog"
CONNECT_SECONDS: Final = 10.0
COMMAND_SECONDS: Final = 30.0
QUERIES_A_CONNECTION: Final = 50_000
LOOKED_AFTER_EVERY: Final = 64
"""So often a connection is given back to asyncpg, which renews it after so many queries."""
IDLE_IN_TRANSACTION_SECONDS: Final = 30
DURABLE_SETTINGS: Final = ("fsync", "full_page_writes", "synchronous_commit")

_SESSION: Final = {
    "search_path": SEARCH_PATH,
    "timezone": "UTC",
    "jit": "off",
    # A plan made while a table is still empty would read the whole of it for as long as it is kept.
    "enable_seqscan": "off",
}

# A page has few rows, in the order of an index, and each looks up what belongs to it. To sort all that there is, or to
# read another table from end to end, is what a planner finds cheap for as long as tables are small.
_PAGES: Final = {
    "plan_cache_mode": "force_custom_plan",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "enable_material": "off",
    "enable_sort": "off",
    "enable_bitmapscan": "off",
    # What counts is how many entries are looked at, not whether they lie side by side.
    "random_page_cost": "0",
    "seq_page_cost": "0",
}

CONNECTION_ERRORS: Final = (
    OSError,
    TimeoutError,
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # also what a connection raises whose server died between two of its statements
    asyncpg.OperatorInterventionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.InvalidAuthorizationSpecificationError,
)
"""The server is away, going, or too full: try again later."""

RETRYABLE_ERRORS: Final = (asyncpg.SerializationError, asyncpg.DeadlockDetectedError, asyncpg.LockNotAvailableError)
"""The transaction lost against another: try again at once."""

CONTENT_ERRORS: Final = (asyncpg.DataError, asyncpg.IntegrityConstraintViolationError)
"""What was to be written is at fault: it will fail again."""


class DatabaseUnavailableError(Exception):
    """Postgres cannot be reached, or not used, at start."""


_UNUSABLE: Final = (*CONNECTION_ERRORS, asyncpg.PostgresError, ValueError, SchemaError)


class _Pool(asyncpg.Pool):
    """Keeps a connection that is given back at hand for whoever asks next, unless somebody waits for one.

    asyncpg readies each for a user who may find it changed, in a task of its own: that takes as long as a small
    statement, and while it goes on, nobody hears of what was committed. Here nobody changes a session.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.waiting = 0
        """How many wait for a connection."""
        self._kept: list[PoolConnectionProxy[asyncpg.Record]] = []
        self._given_back = 0
        self._closes = False

    @property
    def busy(self) -> int:
        """Connections that are in use."""
        return self.get_size() - self.get_idle_size() - sum(map(_is_open, self._kept))

    def acquire(self, *, timeout: float | None = None) -> PoolAcquireContext:
        """A connection, as asyncpg has it."""
        return _Acquiring(self, timeout)

    async def close(self) -> None:
        """Close it when nobody uses it any more."""
        self._closes = True
        while self._kept:
            await self.release(self._kept.pop())
        await super().close()

    async def kept(self) -> "PoolConnectionProxy[asyncpg.Record] | None":
        """A connection that is at hand, if there is one."""
        while self._kept:
            connection = self._kept.pop()
            if _is_open(connection):
                return connection
            await self.release(connection)
        return None

    def keep(self, connection: "PoolConnectionProxy[asyncpg.Record]") -> bool:
        """Have a connection at hand that is given back; whether that is right, else it is to be released."""
        self._given_back += 1
        looked_after = self._given_back % LOOKED_AFTER_EVERY == 0
        if self.waiting or self._closes or looked_after or not _is_open(connection) or connection.is_in_transaction():
            return False
        self._kept.append(connection)
        return True


class _Acquiring(PoolAcquireContext):
    """Acquiring a connection, with the time that it takes, and giving it back."""

    __slots__ = ()
    pool: _Pool

    async def __aenter__(self) -> "PoolConnectionProxy[asyncpg.Record]":
        began = clock.monotonic()
        self.connection = await self.pool.kept()
        if self.connection is not None:
            POOL_WAIT_SECONDS.observe(clock.monotonic() - began)
            return self.connection
        self.pool.waiting += 1
        try:
            return await super().__aenter__()
        finally:
            self.pool.waiting -= 1
            POOL_WAIT_SECONDS.observe(clock.monotonic() - began)

    async def __aexit__(self, *raised: object) -> None:
        assert self.connection is not None, "it was had"
        if raised[0] is not None or not self.pool.keep(self.connection):
            await super().__aexit__(*raised)


def _is_open(connection: "PoolConnectionProxy[asyncpg.Record]") -> bool:
    try:
        return not connection.is_closed()
    except asyncpg.InterfaceError:
        return False  # closed by its server, and taken out of our hands


async def open_pool(
    url: str,
    service: Service,
    *,
    size: int,
    custom_plans: bool = False,
    idle_in_transaction_seconds: int = IDLE_IN_TRANSACTION_SECONDS,
) -> Pool:
    """A pool whose connections have taken the service's role, against a database of this version's schema.

    Args:
        url: as in `HOOKLEDGER_DATABASE_URL`.
        service: whose role the connections take.
        size: connections at most.
        custom_plans: whether each query is planned for its own values, and joins row by row: for lists whose filters
            are optional. A plan for any values sorts all of an application's rows to show a page of them.
        idle_in_transaction_seconds: after which Postgres ends a session that stands still within a transaction.

    Raises:
        DatabaseUnavailableError: with one line for the operator.
    """
    try:
        pool = await _Pool(
            url,
            min_size=1,
            max_size=size,
            max_queries=QUERIES_A_CONNECTION,
            loop=None,
            connection_class=asyncpg.Connection,
            record_class=asyncpg.Record,
            timeout=CONNECT_SECONDS,
            command_timeout=COMMAND_SECONDS,
            max_inactive_connection_lifetime=0,
            reset=_leave_as_it_is,
            server_settings={
                **_SESSION,
                "application_name": f"hookledger-{service}",
                "role": f"hookledger_{service}",
                **(_PAGES if custom_plans else {"plan_cache_mode": "force_generic_plan"}),
                "statement_timeout": "25s",
                "idle_in_transaction_session_timeout": f"{idle_in_transaction_seconds}s",
            },
        )
        async with pool.acquire() as connection:
            await check_schema(connection)
            await follow_clock(connection)
            await _warn_of_losses(connection)
    except _UNUSABLE as error:
        raise DatabaseUnavailableError(reason(error)) from error
    POOL_BUSY.set_function(lambda: pool.busy)
    POOL_MOST.set(size)
    return pool


async def _leave_as_it_is(_: object) -> None:
    """Say nothing to the server when a connection goes back: nobody here listens, sets or locks for a session.

    A transaction that was left open is ended by asyncpg before that. Its own reset is a round trip each time.
    """


async def follow_clock(connection: "Connection | Pool") -> None:
    """Have this process go by the database's clock."""
    asked = clock.monotonic()
    clock.follow(await connection.fetchval("SELECT clock_timestamp()"), asked=asked)


async def _warn_of_losses(connection: Connection) -> None:
    """Say which settings let the server lose in a crash what it has committed: then nobody can keep our promise."""
    rows = await connection.fetch(
        "SELECT name FROM pg_settings WHERE name = ANY($1) AND setting = 'off' ORDER BY name", DURABLE_SETTINGS
    )
    if rows:
        _LOG.warning(
            "durability.off",
            settings=[row["name"] for row in rows],
            means="Postgres may lose accepted messages and recorded attempts in a crash; turn them on",
        )


async def connect(url: str) -> "asyncpg.Connection[asyncpg.Record]":
    """A connection of the URL's own user, who owns the tables: for what no service may do.

    Raises:
        DatabaseUnavailableError: with one line for the operator.
    """
    try:
        connection = await asyncpg.connect(
            url, timeout=CONNECT_SECONDS, server_settings={**_SESSION, "application_name": "hookledger"}
        )
        await check_schema(connection)
    except _UNUSABLE as error:
        raise DatabaseUnavailableError(reason(error)) from error
    return connection


def reason(error: BaseException) -> str:
    """One line on why Postgres cannot be used, and what to do."""
    match error:
        case SchemaError():
            return str(error)
        case asyncpg.InvalidParameterValueError() | asyncpg.UndefinedObjectError() | asyncpg.UndefinedTableError():
            return f"the database is not prepared ({error}); run `hookledger migrate`"
        case ValueError():
            return f"HOOKLEDGER_DATABASE_URL cannot be used: {error}"
        case TimeoutError():
            return "Postgres does not answer; check HOOKLEDGER_DATABASE_URL and the server"
        case _:
            return f"Postgres cannot be reached: {error}; check HOOKLEDGER_DATABASE_URL and the server"


@asynccontextmanager
async def transaction(pool: Pool) -> AsyncIterator[Connection]:
    """A read-committed transaction on a pooled connection."""
    async with pool.acquire(timeout=CONNECT_SECONDS) as connection, connection.transaction():
        yield connection


async def answers(pool: Pool) -> bool:
    """Whether Postgres answers now; for readiness."""
    try:
        async with asyncio.timeout(2):
            await pool.fetchval("SELECT 1")
    except (*CONNECTION_ERRORS, asyncpg.PostgresError):
        return False
    return True
