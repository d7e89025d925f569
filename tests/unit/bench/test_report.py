"""What becomes of measurements: medians, ratios of pairs, the file, the page."""

from pathlib import Path
from typing import Any

import pytest

from bench import page, report
from bench.figures import FIGURES, Figure, Judged
from bench.load import payload
from bench.processor import Used
from bench.report import Measurements, percentile

MACHINE = {"cores": 2, "cpu": "a cpu", "memory_gib": 8.0, "python": "3.11", "postgres": "p", "rabbitmq": "r"}
PROMISED = [
    "deliveries_fanout1",
    "deliveries_fanout10",
    "accept",
    "ledger_append",
    "cpu_per_delivery_us",
    "latency_50_p50_ms",
    "latency_50_p99_ms",
    "latency_500_p50_ms",
    "latency_500_p99_ms",
    "vs_celery",
    "growth_endpoints",
    "growth_ledger",
]


def _measured() -> Measurements:
    measured = Measurements()
    for ceiling, value in ((1000.0, 500.0), (500.0, 250.0), (1000.0, 900.0)):
        measured.ceiling("client", ceiling)
        measured.figure("deliveries_fanout1", value)
    return measured


def test_every_figure_that_is_promised_is_in_the_table() -> None:
    assert set(PROMISED) <= FIGURES.keys()


def test_a_value_is_the_median_and_its_ratio_that_of_the_pairs() -> None:
    assert _measured().ceilings() == {"client": 1000}
    assert _measured().figures() == {
        "deliveries_fanout1": {"value": 500, "unit": "1/s", "ceiling": "client", "ratio": 0.5}
    }


def test_a_figure_that_is_a_ratio_already_is_its_own_ratio() -> None:
    measured = Measurements()
    measured.ceiling("celery", 100.0)
    measured.figure("vs_celery", 7.0)
    assert measured.figures()["vs_celery"] == {"value": 7, "unit": "x", "ceiling": "celery", "ratio": 7}


def test_a_figure_without_ceiling_has_no_ratio() -> None:
    measured = Measurements()
    measured.figure("latency_50_p99_ms", 3.14159265)
    assert measured.figures()["latency_50_p99_ms"] == {"value": 3.1416, "unit": "ms", "ceiling": None, "ratio": None}


@pytest.mark.parametrize(("share", "expected"), [(0.5, 50), (0.99, 99), (1.0, 100), (0.0, 1)])
def test_a_percentile_is_a_value_that_was_measured(share: float, expected: float) -> None:
    assert percentile([float(number) for number in range(100, 0, -1)], share) == expected


@pytest.mark.parametrize(
    ("judged", "value", "ratio", "expected"),
    [
        (Judged.LEAST_RATIO, 0, 1.2, "aim"),
        (Judged.LEAST_RATIO, 0, 0.9, "must"),
        (Judged.LEAST_RATIO, 0, 0.4, "MISSED"),
        (Judged.MOST_VALUE, 1.2, None, "MISSED"),
        (Judged.MOST_VALUE, 0.4, None, "aim"),
        (Judged.MOST_RATIO, 0, 0.4, "aim"),
        (Judged.LEAST_VALUE, 0.4, None, "MISSED"),
        (Judged.LEAST_VALUE, 0.6, None, "must"),
        (Judged.MOST_RATIO_OR_MOVED, 100, 0.4, "aim"),
        (Judged.MOST_RATIO_OR_MOVED, 100, 1.3, "MISSED"),  # from 77 ms
        (Judged.MOST_RATIO_OR_MOVED, 30, 3.0, "aim"),  # from 10 ms
    ],
)
def test_a_figure_is_held_against_its_bounds(judged: Judged, value: float, ratio: float | None, expected: str) -> None:
    must, aim = (0.5, 1.0) if judged in {Judged.LEAST_RATIO, Judged.LEAST_VALUE} else (1.0, 0.5)
    figure = Figure(means="", unit="", judged=judged, must=must, aim=aim)
    assert report.verdict(figure, {"value": value, "ratio": ratio}) == expected


def test_what_is_merged_takes_the_place_of_all_there_was_with_its_own_time_and_machine(tmp_path: Path) -> None:
    file = tmp_path / "dispatch.json"
    first, again = Measurements(), Measurements()
    first.figure("dispatch_ordered", 1.0)
    again.figure("dispatch_ordered", 2.0)
    report.write(first, MACHINE | {"cpu": "an older cpu"}, file)
    assert report.write(again, MACHINE, file, merge=True)["machine"]["cpu"] == "a cpu"
    again.figure("latency_50_p99_ms", 3.0)
    report.write(again, MACHINE, file, merge=True)
    assert report.write(first, MACHINE | {"cpu": "another"}, file, merge=True)["machine"]["cpu"] == "a cpu"


def test_growth_is_merged_into_the_file_and_stays_when_the_rest_is_measured_again(tmp_path: Path) -> None:
    file = tmp_path / "results" / "latest.json"
    report.write(_measured(), MACHINE, file)
    growth = Measurements()
    growth.ceiling("ledger_10k", 700.0)
    growth.figure("growth_ledger", 1.05)
    report.write(growth, MACHINE, file, merge=True)
    assert report.read(file)["figures"].keys() == {"deliveries_fanout1", "growth_ledger"}
    again = report.write(_measured(), MACHINE, file)
    assert again == report.read(file)
    assert again.keys() == {"at", "machine", "ceilings", "figures"}
    assert again["figures"].keys() == {"deliveries_fanout1", "growth_ledger"}
    assert again["ceilings"] == {"client": 1000, "ledger_10k": 700}


def test_the_page_is_filled_from_the_file_and_again(tmp_path: Path) -> None:
    document = report.write(_measured(), MACHINE, tmp_path / "latest.json")
    written = page.PAGE.read_text()
    once = page.filled(written, document)
    assert (
        "| deliveries, saturated, fan-out 1, 1 KiB | 500 1/s | 0.50 of `client` | ratio ≥ 0.5 | ratio ≥ 1 | must |"
        in once
    )
    assert "| `client` | bare aiohttp client, one core: requests | 1,000 1/s |" in once
    assert page.filled(once, document) == once
    assert [line for line in once.splitlines() if line.startswith("#")] == [
        line for line in written.splitlines() if line.startswith("#")
    ]


def test_the_page_has_a_table_of_its_own_for_dispatching(tmp_path: Path) -> None:
    measured = Measurements()
    measured.ceiling("none_hangs", 10.0)
    measured.figure("dispatch_hanging_p99_ms", 40.0)
    document = report.write(measured, MACHINE, tmp_path / "dispatch.json")
    written = page.PAGE.read_text()
    once = page.dispatching(written, document)
    assert "| 40 ms | 4.00 of `none_hangs` | 20 ms more, or ratio ≤ 1.5 |  | MISSED |" in once
    assert page.dispatching(once, document) == once
    assert once.partition("<!-- dispatching -->")[0] == written.partition("<!-- dispatching -->")[0]


def test_a_payload_has_its_size_and_its_moment() -> None:
    made: Any = payload(7, 1024)
    assert len(made) == 1024
    assert made.startswith(b'{"at":"')
    assert made[7:24].replace(b".", b"").isdigit()


def test_processor_time_is_told_for_each_of_a_number() -> None:
    assert Used({"a": 500.0}).since(Used({"a": 100.0}), 4) == {"a": 100.0}
