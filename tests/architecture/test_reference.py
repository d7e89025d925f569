"""Each operation of the reference document, and each of its parameters, is shown by a test that names it."""

import importlib
import inspect
from collections import defaultdict
from pathlib import Path

import pytest

from tests.e2e.sdk.reference import OPERATIONS

SUITE = Path(__file__).parents[1] / "e2e" / "sdk"


@pytest.fixture(scope="module")
def shown() -> dict[str, set[str]]:
    """By operation, the parameters that some test shows; read from the tests themselves."""
    found: dict[str, set[str]] = defaultdict(set)
    for path in sorted(SUITE.glob("test_*.py")):
        module = importlib.import_module(f"tests.e2e.sdk.{path.stem}")
        for name, function in inspect.getmembers(module, inspect.isfunction):
            for mark in getattr(function, "pytestmark", []) if name.startswith("test_") else []:
                if mark.name == "operation":
                    identity, *parameters = mark.args
                    found[identity].update(parameters)
    return found


@pytest.mark.parametrize("identity", OPERATIONS)
def test_an_operation_and_each_of_its_parameters_has_a_test(identity: str, shown: dict[str, set[str]]) -> None:
    assert identity in shown
    assert shown[identity] == set(OPERATIONS[identity])
