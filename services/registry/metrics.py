"""What the registry counts."""

from typing import Final

from prometheus_client import Counter

UNJUDGED: Final = Counter(
    "hookledger_endpoints_unjudged", "Times that an endpoint could not be judged by its health; the log says why"
)
