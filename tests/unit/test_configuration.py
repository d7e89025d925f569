"""docs/configuration.md: what the code declares, and nothing else."""

from pathlib import Path

import msgspec
import pytest

from deploy import configuration
from libs.common.runtime.settings import PLATFORM_NAMES
from services.ingress.settings import IngressSettings
from services.registry.settings import RegistrySettings

EVERY_KIND = [*configuration.SERVICES.values(), *configuration.COMMANDS.values()]


def test_the_page_is_what_the_code_says_now() -> None:
    assert configuration.PAGE.read_text() == configuration.page(), "stale: run `make configuration`"


def test_a_stale_page_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stale = tmp_path / "configuration.md"
    stale.write_text(configuration.page().replace("`8080`", "`8090`"))
    monkeypatch.setattr(configuration, "PAGE", stale)
    assert configuration.main(["--check"]) == 1
    assert "run `make configuration`" in capsys.readouterr().err
    assert configuration.main([]) == 0
    assert configuration.main(["--check"]) == 0


def test_every_name_that_the_platform_knows_is_on_it() -> None:
    assert configuration.known() == PLATFORM_NAMES
    for name in PLATFORM_NAMES:
        assert f"| `HOOKLEDGER_{name}` | " in configuration.page()


@pytest.mark.parametrize("kind", EVERY_KIND)
def test_every_setting_has_a_meaning(kind: type[msgspec.Struct]) -> None:
    assert all(setting.meaning for setting in configuration.settings_of(kind).values())


def test_a_setting_is_shown_with_unit_bounds_and_default() -> None:
    found = configuration.settings_of(IngressSettings)
    grace = found["HOOKLEDGER_STOP_GRACE_MS"]
    assert (grace.type, grace.default) == ("whole number of milliseconds, 0 to 600,000", "`25000`")
    assert found["HOOKLEDGER_IDEMPOTENCY_HOURS"].type == "number of hours, above 0, to 720"
    assert found["HOOKLEDGER_LOG_LEVEL"].type == "`debug`, `info`, `warning`, `error`"
    assert found["HOOKLEDGER_MASTER_KEY"].default == "required"


def test_a_switch_is_shown_with_every_word_that_it_takes() -> None:
    switch = configuration.settings_of(RegistrySettings)["HOOKLEDGER_DEV"]
    assert (switch.type, switch.default) == ("`1` or `true`, `0` or `false`, in any case", "`0`")


def test_what_services_share_stands_once() -> None:
    assert configuration.page().count("| `HOOKLEDGER_STOP_GRACE_MS` | ") == 1
