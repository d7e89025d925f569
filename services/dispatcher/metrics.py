"""What the dispatcher counts."""

from typing import Final

from prometheus_client import Counter, Gauge, Histogram

ATTEMPTS: Final = Counter("hookledger_attempts", "Attempts that ended, by the delivery's state after them", ["status"])
ATTEMPT_SECONDS: Final = Histogram(
    "hookledger_attempt_seconds",
    "Time of an attempt, from looking up its host to the answer's end",
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
)
FANNED_OUT: Final = Counter("hookledger_messages_fanned_out", "Messages fanned out, by how they came", ["path"])
UNMATCHED: Final = Counter("hookledger_messages_unmatched", "Messages that no endpoint was to get")
DELIVERIES: Final = Counter("hookledger_deliveries_scheduled", "Deliveries scheduled")
ENDED: Final = Counter("hookledger_deliveries_ended", "Deliveries that came to an end, by which", ["status"])
LATENESS_SECONDS: Final = Histogram(
    "hookledger_delivery_lateness_seconds",
    "Time from when an attempt was due to when it began; of a first one that need not wait, since acceptance",
    buckets=(0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 15, 60, 300, 1800, 7200),
)
CLAIMED: Final = Counter("hookledger_deliveries_claimed", "Waiting deliveries claimed from lanes")
RECLAIMED: Final = Counter("hookledger_deliveries_reclaimed", "Deliveries taken over from dead processes")
IN_FLIGHT: Final = Gauge("hookledger_attempts_in_flight", "Attempts under way")
LEASES_LOST: Final = Counter("hookledger_leases_lost", "Times that this process was silent for longer than its lease")
DUE: Final = Gauge(
    "hookledger_due_deliveries",
    "Deliveries that are due and wait, counted up to 10,000 an endpoint; whether their endpoint's lane has room",
    ["lane"],
)
OLDEST_DUE_SECONDS: Final = Gauge(
    "hookledger_oldest_due_seconds",
    "For how long the oldest of them is due; `ready` is the service level objective, `full` the receivers' doing",
    ["lane"],
)
OLDEST_UNFANNED_SECONDS: Final = Gauge(
    "hookledger_oldest_unfanned_seconds", "Age of the oldest accepted message that is not fanned out yet"
)
BREAKERS: Final = Counter(
    "hookledger_breaker_changes", "Circuit breakers of endpoints that opened, opened again, or closed", ["change"]
)
BREAKERS_OPEN: Final = Gauge(
    "hookledger_breakers_open", "Endpoints whose circuit breaker is not closed, over all dispatchers"
)
FOLLOWED: Final = Counter(
    "hookledger_events_published",
    "CloudEvents published, by exchange; of outcomes those that somebody listens for",
    ["exchange"],
)
COUNTED: Final = Counter(
    "hookledger_facts_counted",
    "Followed ledger events that projections and operational messages have taken in",
    ["projection"],
)
