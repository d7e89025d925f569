"""What the ingress counts."""

from typing import Final

from prometheus_client import Counter, Gauge, Histogram

ACCEPTED: Final = Counter("hookledger_messages_accepted", "Messages committed, by the way they came in", ["origin"])
DUPLICATES: Final = Counter("hookledger_duplicates", "Repetitions recognised, by the kind of key", ["kind"])
REJECTED: Final = Counter(
    "hookledger_rejected", "Requests and broker messages that could not be accepted", ["origin", "reason"]
)
REJECTED_UNKEPT: Final = Counter("hookledger_rejected_unkept", "Rejected ones that were not kept, to bound the table")
EVENT_AGE_SECONDS: Final = Histogram(
    "hookledger_source_event_age_seconds",
    "How old an accepted event was, for providers that say when it happened",
    ["provider"],
    buckets=(0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800, 7200, 43200, 86400),
)
BATCH_MESSAGES: Final = Histogram(
    "hookledger_accept_batch_messages",
    "Messages in one transaction",
    buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256),
)
COMMIT_SECONDS: Final = Histogram(
    "hookledger_accept_commit_seconds",
    "Time of one transaction that accepts messages",
    buckets=(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)
ENVELOPE_MESSAGES: Final = Histogram(
    "hookledger_envelope_messages", "Messages in one envelope", buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256)
)
ENVELOPE_BYTES: Final = Histogram(
    "hookledger_envelope_bytes",
    "Size of one envelope, in bytes",
    buckets=(1_000, 4_000, 16_000, 64_000, 256_000, 1_000_000, 4_000_000),
)
ENVELOPES: Final = Counter("hookledger_envelopes", "Envelopes published, by what became of them", ["result"])
LEFT_TO_OUTBOX: Final = Counter(
    "hookledger_messages_left_to_outbox", "Messages in no confirmed envelope: a dispatcher takes them from Postgres"
)
WAITING_BYTES: Final = Gauge("hookledger_accept_waiting_bytes", "Bodies that wait for their transaction, in bytes")
TURNED_AWAY: Final = Counter(
    "hookledger_accept_turned_away", "Messages that were answered 503, because too much waited for the database"
)
LIMITED: Final = Counter("hookledger_rate_limited", "Requests that were answered 429, by whose limit", ["kind"])
FORWARDED: Final = Counter("hookledger_forwarded", "Requests forwarded to the registry, by status class", ["status"])
