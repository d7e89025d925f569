"""The figures as a table for people."""

import os

from rich.console import Console
from rich.table import Table

from bench.run import Figures, Plan, Rate


def show(plan: Plan, figures: Figures) -> None:
    """Print it."""
    table = Table(title=f"{plan.deliveries} deliveries of {plan.messages} messages, {os.cpu_count()} cores")
    table.add_column("what")
    table.add_column("per second", justify="right")
    table.add_column("CPU ms each", justify="right")
    rows: list[tuple[str, Rate]] = [
        ("bare HTTP client: request", figures.ceiling),
        ("ingress: message", figures.ingress),
        ("dispatcher: delivery", figures.dispatcher),
    ]
    for what, rate in rows:
        table.add_row(what, f"{rate.per_second:,.0f}", f"{rate.cpu_ms:.2f}")
    for what, cpu_ms in (
        ("Postgres: delivery", figures.postgres_cpu_ms),
        ("RabbitMQ: delivery", figures.broker_cpu_ms),
    ):
        table.add_row(what, "", "not ours" if cpu_ms is None else f"{cpu_ms:.2f}")
    console = Console(highlight=False)
    console.print(table)
    console.print(
        f"dispatcher over bare client: {figures.rate_ratio:.2f} of the rate, {figures.cpu_ratio:.1f} times the CPU"
    )
