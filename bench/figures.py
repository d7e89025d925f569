"""What is measured, and what it must reach: the table of figures."""

from dataclasses import dataclass
from enum import Enum, auto
from typing import Final


class Judged(Enum):
    """What the bounds of a figure are about."""

    LEAST_RATIO = auto()
    MOST_RATIO = auto()
    LEAST_VALUE = auto()
    MOST_VALUE = auto()
    MOST_RATIO_OR_MOVED = auto()


MOST_MOVED_MS: Final = 20.0
"""So far a latency may move from its ceiling, whatever the ratio: a small one moves by much of itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A figure: what it means, and beside which ceiling it stands.

    Attributes:
        unit: where it is `x`, the value is itself a ratio to the ceiling.
        ceiling: its name; None where nothing is compared.
        judged, must, aim: the bounds that the figure is held against; None where there are none.
    """

    means: str
    unit: str
    ceiling: str | None = None
    judged: Judged | None = None
    must: float | None = None
    aim: float | None = None

    def reached(self, bound: float | None, value: float, ratio: float | None) -> bool | None:
        """Whether the figure keeps within a bound; None where there is none."""
        if bound is None or self.judged is None:
            return None
        match self.judged:
            case Judged.LEAST_RATIO:
                return ratio is not None and ratio >= bound
            case Judged.MOST_RATIO:
                return ratio is not None and ratio <= bound
            case Judged.LEAST_VALUE:
                return value >= bound
            case Judged.MOST_VALUE:
                return value <= bound
            case Judged.MOST_RATIO_OR_MOVED:
                return ratio is not None and (ratio <= bound or value - value / ratio <= MOST_MOVED_MS)


CEILINGS: Final = {
    "client": ("bare aiohttp client, one core: requests", "1/s"),
    "client_cpu": ("the same: processor time of a request", "µs"),
    "handler": ("bare aiohttp.web handler, one core: requests", "1/s"),
    "append": ("`unnest` of 256 rows, a primary key alone: rows", "1/s"),
    "envelopes": ("envelopes of 32 over the broker: messages", "1/s"),
    "commits_and_hop": ("two commits and a hop over the broker, idle", "ms"),
    "celery": ("peer: Celery on RabbitMQ with requests", "1/s"),
    "gather": ("peer: asyncio.gather in process", "1/s"),
    "endpoints_10": ("processor time of a delivery, 10 endpoints", "µs"),
    "ledger_10k": ("processor time of a delivery, 10,000 ledger rows", "µs"),
    "plain_claims": ("claims in plain `due_at` order", "1/s"),
    "plain_small": ("the same: until the small applications' are claimed, or it was ended", "s"),
    "none_hangs": ("p99 of 99 endpoints at 200/s, none hangs", "ms"),
    "no_backlog": ("p99 of 20 small applications at 200/s, no backlog", "ms"),
}
"""What figures stand beside: name, meaning and unit."""


def _rate(means: str, ceiling: str | None, must: float | None = None, aim: float | None = None) -> Figure:
    judged = None if must is None else Judged.LEAST_RATIO
    return Figure(means=means, unit="1/s", ceiling=ceiling, judged=judged, must=must, aim=aim)


def _latency(rate: int, percentile: int, must: float | None = None, aim: float | None = None) -> Figure:
    judged = None if must is None else Judged.MOST_VALUE
    ceiling = "commits_and_hop" if percentile == 50 else None
    means = f"POST to the receiver's socket at {rate}/s, p{percentile}"
    return Figure(means=means, unit="ms", ceiling=ceiling, judged=judged, must=must, aim=aim)


def _cpu(means: str, must: float | None = None, aim: float | None = None) -> Figure:
    judged = None if must is None else Judged.MOST_VALUE
    return Figure(means=f"processor time of a delivery, {means}", unit="µs", judged=judged, must=must, aim=aim)


def _growth(means: str, ceiling: str) -> Figure:
    return Figure(means=means, unit="x", ceiling=ceiling, judged=Judged.MOST_RATIO, must=1.3, aim=1.1)


PARTS: Final = ("ingress", "dispatcher", "registry", "broker", "postgres")

FIGURES: Final[dict[str, Figure]] = {
    "deliveries_fanout1": _rate("deliveries, saturated, fan-out 1, 1 KiB", "client", 0.5, 1.0),
    "deliveries_fanout10": _rate("deliveries, saturated, fan-out 10, 1 KiB", "client", 0.75, 1.5),
    "deliveries_outcomes_heard": _rate("deliveries, beside a queue that gets every outcome", "client"),
    "deliveries_broker": _rate("deliveries, published over the broker", "client"),
    "deliveries_one_endpoint": _rate("deliveries, all to one endpoint, whose `max_inflight` bounds them", "client"),
    "deliveries_10kib": _rate("deliveries, bodies of 10 KiB", "client"),
    "deliveries_100kib": _rate("deliveries, bodies of 100 KiB", "client"),
    "accept": _rate("messages accepted, dispatcher stopped", "handler", 0.55, 0.75),
    "ledger_append": _rate("ledger append, facts only: rows", "append", 0.5, 0.7),
    "ledger_append_projected": _rate("ledger append with its projections: rows", "append", 0.3, 0.45),
    "cpu_per_delivery_us": _cpu("saturated, services, broker and Postgres", 800, 450),
    **{f"cpu_per_delivery_{part}_us": _cpu(f"saturated: {part}") for part in PARTS},
    "cpu_per_delivery_heard_us": _cpu("saturated, beside a queue that gets every outcome"),
    **{f"cpu_per_delivery_heard_{part}_us": _cpu(f"the same: {part}") for part in PARTS},
    "cpu_per_delivery_500_us": _cpu("at 500/s", 2000, 1200),
    **{f"cpu_per_delivery_500_{part}_us": _cpu(f"at 500/s: {part}") for part in PARTS},
    "latency_50_p50_ms": _latency(50, 50, 10, 6),
    "latency_50_p99_ms": _latency(50, 99, 40, 20),
    "latency_500_p50_ms": _latency(500, 50, 20, 10),
    "latency_500_p99_ms": _latency(500, 99, 60, 30),
    "latency_1000_p50_ms": _latency(1000, 50),
    "latency_1000_p99_ms": _latency(1000, 99),
    "latency_50_p50_over_hop": Figure(
        means="p50 at 50/s over two commits and a hop",
        unit="x",
        ceiling="commits_and_hop",
        judged=Judged.MOST_RATIO,
        must=2.0,
    ),
    "retry_lateness_p50_ms": Figure(means="a retry behind its time, p50", unit="ms"),
    "retry_lateness_p99_ms": Figure(means="a retry behind its time, p99", unit="ms"),
    "vs_celery": Figure(
        means="deliveries over those of Celery", unit="x", ceiling="celery", judged=Judged.LEAST_RATIO, must=5, aim=10
    ),
    "vs_gather": Figure(means="deliveries over those of asyncio.gather", unit="x", ceiling="gather"),
    **{
        f"memory_{service}_{when}_mib": Figure(means=f"memory of {service}, {words}", unit="MiB")
        for service in ("ingress", "dispatcher", "registry")
        for when, words in (("rest", "at rest"), ("load", "under load"))
    },
    "growth_endpoints": _growth("cost of a delivery at 100,000 endpoints over 10", "endpoints_10"),
    "growth_ledger": _growth("cost of a delivery at 5 M ledger rows over 10 k", "ledger_10k"),
    "dispatch_claims": Figure(
        means="claims by three dispatchers of very many due, 99 % of one application",
        unit="1/s",
        ceiling="plain_claims",
        judged=Judged.LEAST_VALUE,
        must=20_000,
    ),
    "dispatch_small_s": Figure(
        means="the same: until what 20 small applications have due is claimed",
        unit="s",
        ceiling="plain_small",
        judged=Judged.MOST_VALUE,
        must=1.0,
    ),
    "dispatch_ordered": Figure(means="ordered deliveries over 100 keys, with 500s and kills", unit="1/s"),
    "dispatch_ordered_kills": Figure(means="the same: dispatchers killed meanwhile", unit="kills"),
    "dispatch_out_of_order": Figure(
        means="the same: requests out of order", unit="requests", judged=Judged.MOST_VALUE, must=0
    ),
    "dispatch_retries_due": Figure(means="retries due", unit="1/s"),
    "dispatch_retries_p50_ms": Figure(means="the same: behind their time, p50", unit="ms"),
    "dispatch_retries_p99_ms": Figure(
        means="the same: behind their time, p99", unit="ms", judged=Judged.MOST_VALUE, must=250
    ),
    "dispatch_hanging_p99_ms": Figure(
        means="p99 of 99 endpoints at 200/s, beside one that hangs",
        unit="ms",
        ceiling="none_hangs",
        judged=Judged.MOST_RATIO_OR_MOVED,
        must=1.5,
    ),
    "dispatch_backlog_p99_ms": Figure(
        means="p99 of 20 small applications at 200/s, beside the backlog of a large one",
        unit="ms",
        ceiling="no_backlog",
        judged=Judged.MOST_RATIO_OR_MOVED,
        must=1.5,
    ),
    "dispatch_backlog_beside": Figure(means="the same: sent of the backlog meanwhile", unit="1/s"),
    "dispatch_backlog_alone": Figure(means="the same: sent of it while nothing else comes", unit="1/s"),
}
