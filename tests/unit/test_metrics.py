"""docs/metrics.md: what the code counts, and nothing else."""

import re

import pytest

from deploy import metrics
from deploy.stack.places import CHECKOUT

MAKING = re.compile(r"\b(?:Counter|Gauge|Histogram|Summary|Info|Enum)\(\s*\"hookledger_")
ISSUE = {
    "accepted": "hookledger_messages_accepted_total",
    "rejected by reason": "hookledger_rejected_total",
    "duplicates": "hookledger_duplicates_total",
    "unmatched": "hookledger_messages_unmatched_total",
    "commit batch sizes": "hookledger_accept_batch_messages",
    "commit times": "hookledger_accept_commit_seconds",
    "envelope sizes": "hookledger_envelope_bytes",
    "deliveries by outcome": "hookledger_deliveries_ended_total",
    "attempt latency": "hookledger_attempt_seconds",
    "due backlog": "hookledger_due_deliveries",
    "age of the oldest due": "hookledger_oldest_due_seconds",
    "lateness": "hookledger_delivery_lateness_seconds",
    "in flight": "hookledger_attempts_in_flight",
    "leases lost": "hookledger_leases_lost_total",
    "snapshot version lag": "hookledger_snapshot_version_lag",
    "pool waits": "hookledger_pool_wait_seconds",
    "dead letters": "hookledger_dead_letters",
}
"""What an operator must be able to see, and where."""

EVERY = [metric for module in metrics.SECTIONS.values() for metric in metrics.declared(module)]


def test_the_page_is_what_the_code_says_now() -> None:
    assert metrics.PAGE.read_text() == metrics.page(), "stale: run `make configuration`"


def test_what_an_operator_must_see_is_there() -> None:
    assert set(ISSUE.values()) <= {metric.name for metric in EVERY}
    assert {metric.name: metric.labels for metric in EVERY}["hookledger_rejected_total"] == ("origin", "reason")


def test_no_metric_is_made_where_the_page_does_not_look() -> None:
    looked_at = {module.__file__ for module in metrics.SECTIONS.values()}
    made = {
        str(path)
        for folder in ("libs", "services")
        for path in (CHECKOUT / folder).rglob("*.py")
        if MAKING.search(path.read_text())
    }
    assert made == looked_at


@pytest.mark.parametrize("metric", EVERY, ids=lambda metric: metric.name)
def test_a_metric_has_a_unit_a_meaning_and_no_label_that_grows(metric: metrics.Metric) -> None:
    assert metric.name.startswith("hookledger_")
    assert metric.meaning
    assert metric.kind != "histogram" or metric.name.endswith(("_seconds", "_messages", "_bytes"))
    assert set(metric.labels) <= {
        *("change", "exchange", "kind", "lane", "origin", "path", "projection", "provider", "reason", "result"),
        *("service", "status", "version"),
    }
