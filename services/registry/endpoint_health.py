"""How an endpoint fares now: its state, its failures in a row, and how fast it answers."""

from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final, cast

from libs.common.contracts.configuration import config_version
from libs.common.contracts.registry import EndpointDocument, RegistryObject
from libs.common.domain.breaker import Circuit, circuit
from libs.common.domain.health import Health, merged, of_configuration, quantile
from libs.common.postgres import health
from libs.common.postgres.pool import Connection
from services.registry import endpoints
from services.registry.answers import Answer, ok
from services.registry.calls import Call
from services.registry.fields import Out

_MILLISECOND: Final = timedelta(milliseconds=1)


class State(StrEnum):
    """What an endpoint is, in one word."""

    HEALTHY = "healthy"
    FAILING = "failing"
    DISABLED = "disabled"


class LatencyOut(Out):
    """Of the answers of today and yesterday (UTC): within how many milliseconds half of them came, and 19 of 20."""

    answers: int
    p50_ms: float | None
    p95_ms: float | None


class CircuitOut(Out):
    """Of the circuit breaker: since when it is not closed, and from when on the next probe may go."""

    state: Circuit
    since: datetime | None
    next_probe: datetime | None


class EndpointHealthOut(Out):
    """Failures are those in a row that the present configuration met with."""

    state: State
    consecutive_failures: int
    failing_since: datetime | None
    last_success: datetime | None
    last_failure: datetime | None
    latency: LatencyOut
    circuit: CircuitOut


async def get(call: Call) -> Answer:
    """GET /app/{app}/endpoint/{endpoint}/health."""
    return ok(await of_endpoint(call.connection, await endpoints.endpoint(call)))


async def of_endpoint(connection: Connection, endpoint: RegistryObject) -> EndpointHealthOut:
    """The health of an endpoint that is there."""
    row = (await health.read(connection, [endpoint.id])).get(endpoint.id)
    known = of_configuration(row.health if row is not None else Health(), config_version(endpoint))
    counts = merged(known.latencies, known.latencies_before)
    return EndpointHealthOut(
        state=_state(cast("EndpointDocument", endpoint.document)),
        consecutive_failures=known.failures,
        failing_since=known.failing_since,
        last_success=known.last_success_at,
        last_failure=known.last_failure_at,
        latency=LatencyOut(
            answers=sum(counts),
            p50_ms=_milliseconds(quantile(counts, 0.5)),
            p95_ms=_milliseconds(quantile(counts, 0.95)),
        ),
        circuit=await _circuit(connection, endpoint),
    )


async def _circuit(connection: Connection, endpoint: RegistryObject) -> CircuitOut:
    row = await connection.fetchrow(
        """
        SELECT opened_at, open_until, clock_timestamp() AS now FROM hookledger.breaker
        WHERE endpoint = $1 AND config_version >= $2
        """,
        endpoint.id,
        config_version(endpoint),
    )
    if row is None:
        return CircuitOut(state=Circuit.CLOSED, since=None, next_probe=None)
    state = circuit(row["open_until"], row["now"])
    return CircuitOut(state=state, since=row["opened_at"], next_probe=row["open_until"])


def _state(document: EndpointDocument) -> State:
    if document.disabled:
        return State.DISABLED
    return State.FAILING if document.failing is not None else State.HEALTHY


def _milliseconds(time: timedelta | None) -> float | None:
    return None if time is None else time / _MILLISECOND
