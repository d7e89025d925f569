"""Writes docs/metrics.md from the metrics that the code declares: `python -m deploy.metrics`."""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Final

from prometheus_client import Counter, Gauge, Histogram

from libs.common.runtime import metrics as common
from services.dispatcher import metrics as dispatcher
from services.ingress import metrics as ingress
from services.registry import metrics as registry

PAGE: Final = Path(__file__).parents[1] / "docs" / "metrics.md"
SECTIONS: Final = {"All services": common, "ingress": ingress, "dispatcher": dispatcher, "registry": registry}

_HEAD: Final = """\
# Metrics

Written by `make configuration` from the code; a test fails when it is stale.

Each service tells them at `/metrics`, beside those of its Python process (`process_…`, `python_…`). Names are as they
are asked for; a histogram has `_bucket`, `_sum` and `_count`. Each process tells its own, to be summed. Of these gauges
each tells what it sees of the same thing, so that the greatest is meant: `hookledger_dead_letters`,
`hookledger_due_deliveries`, `hookledger_breakers_open` and all `hookledger_oldest_…`. No label takes a value that the
code does not name: whose deliveries fail is in the API's statistics and in the log.

The objective is on `max(hookledger_oldest_due_seconds{lane="ready"})`, for how long the oldest delivery is due that
only waits for a dispatcher: below 30 seconds. Rules for alerts: `deploy/prometheus/rules.yaml`; what to do about each
is in [runbooks](runbooks). A dashboard: `deploy/grafana/hookledger.json`.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """One metric, as it is asked for."""

    name: str
    kind: str
    labels: tuple[str, ...]
    meaning: str

    @property
    def series(self) -> tuple[str, ...]:
        """The names under which it can be asked for."""
        suffixes = ("_bucket", "_sum", "_count") if self.kind == "histogram" else ("",)
        return tuple(self.name + suffix for suffix in suffixes)


def declared(module: ModuleType) -> Iterator[Metric]:
    """The metrics that a module makes, in its order."""
    for value in vars(module).values():
        if isinstance(value, (Counter, Gauge, Histogram)):
            [family] = value.describe()
            yield Metric(
                name=family.name + ("_total" if family.type == "counter" else ""),
                kind=family.type,
                labels=tuple(value._labelnames),  # noqa: SLF001  the client tells them nowhere else
                meaning=family.documentation,
            )


def known() -> set[str]:
    """Every name under which a metric can be asked for."""
    return {name for module in SECTIONS.values() for metric in declared(module) for name in metric.series}


def page() -> str:
    """The whole page."""
    parts = [_HEAD]
    for title, module in SECTIONS.items():
        rows = [
            f"| `{metric.name}` | {metric.kind} | {', '.join(f'`{label}`' for label in metric.labels)} "
            f"| {metric.meaning} |\n"
            for metric in declared(module)
        ]
        parts += [f"## {title}\n", "| name | kind | labels | meaning |\n|---|---|---|---|\n" + "".join(rows)]
    return "\n".join(parts)


def main(_: Sequence[str]) -> int:
    """Write the page."""
    PAGE.write_text(page(), encoding="utf-8")
    print("configuration: docs/metrics.md is written")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
