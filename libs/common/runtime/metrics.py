"""What each service counts, whatever it does. docs/metrics.md lists all of them.

No label may take more values than the code names: an endpoint's or an organisation's id belongs into logs and the API.
"""

from typing import Final

from prometheus_client import Counter, Gauge, Histogram

BUILD: Final = Gauge("hookledger_build_info", "1, with the service and its version", ["service", "version"])
HTTP_SECONDS: Final = Histogram(
    "hookledger_http_request_seconds",
    "Time of a request from its headers read to its answer made, by status class; without health and metrics",
    ["status"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
)
SLOW_HEADS: Final = Counter(
    "hookledger_http_slow_heads", "Connections closed because a request's headers did not come in"
)
EXPRESS: Final = Counter("hookledger_http_express", "Plain requests that were answered without aiohttp's machinery")
POOL_WAIT_SECONDS: Final = Histogram(
    "hookledger_pool_wait_seconds",
    "Time until a connection to Postgres was had from the pool",
    buckets=(0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10),
)
POOL_BUSY: Final = Gauge("hookledger_pool_connections_busy", "Connections to Postgres that are in use")
POOL_MOST: Final = Gauge("hookledger_pool_connections_max", "Connections to Postgres that the pool may have")
DEAD_LETTERS: Final = Gauge(
    "hookledger_dead_letters", "Messages in the queue of dead letters, as of the last look, within half a minute"
)
SNAPSHOT_LAG: Final = Gauge(
    "hookledger_snapshot_version_lag",
    "Versions of the registry that were heard of and are not read yet; a registry reads none and tells 0",
)
SNAPSHOT_AGE_SECONDS: Final = Gauge(
    "hookledger_snapshot_age_seconds", "Time since the registry was last read as committed; a registry tells 0"
)
