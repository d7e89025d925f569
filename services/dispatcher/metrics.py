"""What the dispatcher counts."""

from typing import Final

from prometheus_client import Counter, Gauge, Histogram

ATTEMPTS: Final = Counter("hookledger_attempts", "Attempts that ended, by the delivery's state after them", ["status"])
ATTEMPT_SECONDS: Final = Histogram(
    "hookledger_attempt_seconds",
    "Time of an attempt from first byte out to answer read",
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
)
FANNED_OUT: Final = Counter("hookledger_messages_fanned_out", "Messages fanned out, by how they came", ["path"])
DELIVERIES: Final = Counter("hookledger_deliveries_scheduled", "Deliveries scheduled")
CLAIMED: Final = Counter("hookledger_deliveries_claimed", "Waiting deliveries claimed from lanes")
RECLAIMED: Final = Counter("hookledger_deliveries_reclaimed", "Deliveries taken over from dead processes")
IN_FLIGHT: Final = Gauge("hookledger_attempts_in_flight", "Attempts under way")
FOLLOWED: Final = Counter("hookledger_events_published", "CloudEvents published, by exchange", ["exchange"])
COUNTED: Final = Counter("hookledger_facts_counted", "Ledger events that projections have taken in", ["projection"])
