"""From measurements to the file of figures and the table.

Each figure is measured several times in a run, every time right after its ceiling, or between two of them. Its value
is the median, its ratio the median of the ratios of these pairs, so that a machine that is slow for a while is slow for
both.
"""

import json
import math
import os
import platform
from collections import defaultdict
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from bench.figures import CEILINGS, FIGURES, Figure
from deploy.stack.places import CHECKOUT, make_folder
from deploy.stack.servers import Servers

LATEST: Final = CHECKOUT / "bench" / "results" / "latest.json"
DISPATCH: Final = LATEST.with_name("dispatch.json")
_TIMES: Final = "x"
_APART: Final = {"figures": {"growth_endpoints", "growth_ledger"}, "ceilings": {"endpoints_10", "ledger_10k"}}
"""What `make bench-growth` measures: it takes long, and stays when the rest is measured again."""


class Measurements:
    """What was measured so far."""

    def __init__(self) -> None:
        self._ceilings: dict[str, list[float]] = defaultdict(list)
        self._values: dict[str, list[float]] = defaultdict(list)
        self._ratios: dict[str, list[float]] = defaultdict(list)

    def ceiling(self, name: str, value: float) -> None:
        """A ceiling was taken."""
        assert name in CEILINGS, name
        self._ceilings[name].append(value)

    def figure(self, name: str, value: float, *, ceiling: float | None = None) -> None:
        """A figure was measured, at a time when its ceiling was that; by default, what was taken of it last."""
        figure = FIGURES[name]
        self._values[name].append(value)
        if figure.unit == _TIMES:
            self._ratios[name].append(value)
        elif figure.ceiling is not None:
            self._ratios[name].append(value / (ceiling or self.last(figure.ceiling)))

    def last(self, name: str) -> float:
        """The ceiling as it was taken last."""
        return self._ceilings[name][-1]

    def ceilings(self) -> dict[str, float]:
        """The median of each."""
        return {name: _rounded(median(values)) for name, values in self._ceilings.items()}

    def figures(self) -> dict[str, dict[str, Any]]:
        """Value, unit, ceiling and ratio of each, in the order of the table."""
        return {
            name: {
                "value": _rounded(median(self._values[name])),
                "unit": figure.unit,
                "ceiling": figure.ceiling,
                "ratio": _rounded(median(self._ratios[name])) if self._ratios[name] else None,
            }
            for name, figure in FIGURES.items()
            if self._values[name]
        }


def percentile(values: list[float], share: float) -> float:
    """The nearest-rank percentile: the least value that `share` of the values do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * share) - 1)]


def machine_of(servers: Servers) -> dict[str, Any]:
    """What is measured on."""
    cpu = next(
        (line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")),
        platform.processor(),
    )
    memory = next((line.split()[1] for line in _lines("/proc/meminfo") if line.startswith("MemTotal")), "0")
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "memory_gib": round(int(memory) / 1024**2, 1),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "postgres": servers.postgres.title.partition(" on ")[0],
        "rabbitmq": servers.broker.title.partition(" on ")[0],
    }


def write(measured: Measurements, on: Mapping[str, Any], file: Path = LATEST, *, merge: bool = False) -> dict[str, Any]:
    """Write the file of figures; with `merge` what it holds of others stays, and the time and machine of those."""
    document: dict[str, Any] = {"at": datetime.now(UTC).isoformat(timespec="seconds"), "machine": dict(on)}
    document |= {"ceilings": measured.ceilings(), "figures": measured.figures()}
    kept = read(file) if file.exists() else {"ceilings": {}, "figures": {}}
    if merge:
        if kept["figures"].keys() - document["figures"].keys():
            document |= {name: kept[name] for name in ("at", "machine") if name in kept}
        for part in ("ceilings", "figures"):
            document[part] = kept[part] | document[part]
    else:
        for part in ("ceilings", "figures"):
            apart = {name: value for name, value in kept[part].items() if name in _APART[part]}
            document[part] = document[part] | apart
    make_folder(file.parent)
    file.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")
    return document


def read(file: Path = LATEST) -> dict[str, Any]:
    """The file of figures."""
    document: dict[str, Any] = json.loads(file.read_text())
    return document


def show(document: Mapping[str, Any]) -> None:
    """Print the table."""
    console = Console(highlight=False)
    ceilings = Table("ceiling", "", title=f"{document['machine']['cores']} cores, {document['at']}")
    ceilings.columns[1].justify = "right"
    for name, value in document["ceilings"].items():
        means, unit = CEILINGS[name]
        ceilings.add_row(means, f"{spelled(value)} {unit}")
    console.print(ceilings)
    figures = Table("figure", "value", "ratio", "must", "aim", "")
    for column in figures.columns[1:5]:
        column.justify = "right"
    for name, row in document["figures"].items():
        figure = FIGURES[name]
        ratio = "" if row["ratio"] is None else f"{row['ratio']:.2f}"
        bounds = ("" if bound is None else spelled(bound) for bound in (figure.must, figure.aim))
        figures.add_row(figure.means, f"{spelled(row['value'])} {row['unit']}", ratio, *bounds, verdict(figure, row))
    console.print(figures)


def verdict(figure: Figure, row: Mapping[str, Any]) -> str:
    """How far a figure has come."""
    if figure.reached(figure.aim, row["value"], row["ratio"]):
        return "aim"
    must = figure.reached(figure.must, row["value"], row["ratio"])
    return "" if must is None else "must" if must else "MISSED"


def spelled(value: float) -> str:
    """A number with about three digits that matter."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _rounded(value: float) -> float:
    return float(f"{value:.5g}")


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []
