"""Draws the figures: `python bench/plot.py LATEST.json PICTURE.png`, in the peers' environment."""

import json
import sys

import matplotlib as mpl

mpl.use("Agg")
from matplotlib import pyplot as plt

PARTS = ("ingress", "dispatcher", "registry", "broker", "postgres")
RATES = (
    ("client", "ceilings", "bare client"),
    ("deliveries_fanout1", "figures", "fan-out 1"),
    ("deliveries_fanout10", "figures", "fan-out 10"),
    ("deliveries_broker", "figures", "over the broker"),
    ("gather", "ceilings", "asyncio.gather"),
    ("celery", "ceilings", "Celery"),
)


def value(document, part, name):
    """A figure or a ceiling; 0 where it was not measured."""
    found = document[part].get(name, 0)
    return found if part == "ceilings" else (found or {"value": 0})["value"]


def rates(axes, document):
    """Deliveries a second beside ceiling and peers."""
    heights = [value(document, part, name) for name, part, _ in RATES]
    colours = ["#1f6f8b" if part == "figures" else "#b8b8b8" for _, part, _ in RATES]
    bars = axes.bar([label for *_, label in RATES], heights, color=colours)
    axes.bar_label(bars, labels=[f"{height:,.0f}" for height in heights], fontsize=8)
    axes.set_title("deliveries a second")
    axes.tick_params(axis="x", labelrotation=30, labelsize=8)


def costs(axes, document):
    """Where the processor time of a delivery goes, as stacked bars."""
    for at, prefix in enumerate(("cpu_per_delivery", "cpu_per_delivery_500")):
        bottom = 0.0
        for number, part in enumerate(PARTS):
            us = value(document, "figures", f"{prefix}_{part}_us")
            axes.bar(at, us, bottom=bottom, color=plt.cm.viridis(number / 5), label=part if at == 0 else None)
            bottom += us
    axes.set_xticks([0, 1], ["saturated", "500/s"])
    axes.margins(x=0.6)  # room for the legend
    axes.set_title("processor time of a delivery, µs")
    axes.legend(fontsize=8, loc="upper left")


def latencies(axes, document):
    """POST to the receiver's socket by rate."""
    rates_tried = (50, 500, 1000)
    for percentile in ("p50", "p99"):
        ms = [value(document, "figures", f"latency_{rate}_{percentile}_ms") for rate in rates_tried]
        axes.plot([str(rate) for rate in rates_tried], ms, marker="o", label=percentile)
    axes.set_yscale("log")
    axes.set_title("from POST to receiver, ms, by messages a second")
    axes.legend(fontsize=8, loc="upper left")


def main(latest, picture):
    """Draw."""
    with open(latest) as file:
        document = json.load(file)
    figure, axes = plt.subplots(1, 3, figsize=(14, 4.2), layout="constrained")
    for axis, draw in zip(axes, (rates, costs, latencies), strict=True):
        draw(axis, document)
        axis.spines[["top", "right"]].set_visible(False)
    machine = document["machine"]
    figure.suptitle(f"{machine['cores']} cores, {machine['cpu']}, {document['at'][:10]}", fontsize=9)
    figure.savefig(picture, dpi=110, metadata={"Software": None})


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
