"""One environment serves all parts of the platform: their settings know of one another."""

import importlib
import pkgutil
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

import services
from libs.common.runtime.settings import PLATFORM_NAMES, CommonSettings, help_text

CHECKOUT = Path(__file__).parents[2]
SERVICES = ("ingress", "dispatcher", "registry")


def settings_of(service: str) -> list[type[CommonSettings]]:
    """What the service declares as its settings, wherever it does."""
    package = importlib.import_module(f"services.{service}")
    found = set()
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        if not module.name.endswith("__main__"):
            members = vars(importlib.import_module(module.name)).values()
            found |= {member for member in members if isinstance(member, type) and issubclass(member, CommonSettings)}
    return sorted(found - {CommonSettings}, key=lambda kind: kind.__name__)


def names(kind: type[CommonSettings]) -> Iterator[str]:
    yield from (field.name.upper() for field in msgspec.structs.fields(kind))


@pytest.mark.parametrize("service", SERVICES)
def test_every_service_declares_its_settings_once(service: str) -> None:
    assert len(settings_of(service)) == 1


@pytest.mark.parametrize("service", SERVICES)
def test_every_setting_of_a_service_is_known_to_the_platform(service: str) -> None:
    [kind] = settings_of(service)
    assert set(names(kind)) <= PLATFORM_NAMES


@pytest.mark.parametrize("service", SERVICES)
def test_every_setting_of_a_service_is_explained(service: str) -> None:
    [kind] = settings_of(service)
    assert "      (" not in help_text(kind, service, "")


def test_every_name_that_the_platform_knows_is_used_by_some_part_of_it() -> None:
    declared = {name for service in SERVICES for kind in settings_of(service) for name in names(kind)}
    folders = [CHECKOUT / "deploy", CHECKOUT / "examples", CHECKOUT / "services"]
    texts = [path.read_text() for folder in folders for path in folder.rglob("*.py")]
    unused = {name for name in PLATFORM_NAMES - declared if not any(f"HOOKLEDGER_{name}" in text for text in texts)}
    assert not unused


def test_there_are_no_other_services() -> None:
    packages = {module.name for module in pkgutil.iter_modules(services.__path__)}
    assert packages == {*SERVICES, "admin"}
