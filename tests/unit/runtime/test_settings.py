"""Settings: read from the environment, refused in one clear line."""

import base64
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated

import pytest
from msgspec import Meta

from libs.common.runtime.settings import (
    CommonSettings,
    SettingsError,
    help_text,
    load,
    parse_master_keys,
    parse_networks,
)


class ExampleSettings(CommonSettings, kw_only=True, frozen=True):
    """Settings of a service that exists in this file only."""

    master_key: Annotated[str, Meta(description="base64 of 32 random bytes")]
    port: Annotated[int, Meta(ge=0, le=65535, description="port to listen on")] = 8080
    dev: Annotated[bool, Meta(description="whether anything goes")] = False


REQUIRED = {
    "HOOKLEDGER_DATABASE_URL": "postgresql://localhost/x",
    "HOOKLEDGER_AMQP_URL": "amqp://localhost/",
    "HOOKLEDGER_MASTER_KEY": "key",
}


def loaded(**more: str) -> ExampleSettings:
    return load(ExampleSettings, REQUIRED | {f"HOOKLEDGER_{name}": value for name, value in more.items()})


def refusal(**more: str) -> str:
    with pytest.raises(SettingsError) as refused:
        loaded(**more)
    return str(refused.value)


# What is read


def test_a_setting_is_read_from_its_variable() -> None:
    settings = loaded(PORT="9090", DEV="1", LOG_LEVEL="debug")
    assert (settings.port, settings.dev, settings.log_level) == (9090, True, "debug")
    assert settings.database_url == "postgresql://localhost/x"


def test_what_is_not_set_takes_its_default() -> None:
    settings = loaded()
    assert (settings.port, settings.dev, settings.amqp_prefix) == (8080, False, "hookledger")


def test_variables_of_others_are_passed_over() -> None:
    assert load(ExampleSettings, REQUIRED | {"PATH": "/bin", "HOOKLEDGERX": "1"}) == loaded()


def test_settings_of_the_platforms_other_parts_are_passed_over() -> None:
    assert loaded(REGISTRY_URL="http://registry:8081", API_KEY="hlk_x") == loaded()


@pytest.mark.parametrize(
    ("text", "value"), [("1", True), ("true", True), ("TRUE", True), ("0", False), ("false", False), ("False", False)]
)
def test_a_switch_is_a_number_or_a_word(text: str, *, value: bool) -> None:
    assert loaded(DEV=text).dev is value


@pytest.mark.parametrize("text", ["", "yes", "on", "2"])
def test_a_switch_is_no_other_word(text: str) -> None:
    assert refusal(DEV=text).startswith("HOOKLEDGER_DEV: ")


def test_a_secret_can_be_mounted_as_a_file(tmp_path: Path) -> None:
    mounted = tmp_path / "url"
    mounted.write_text("postgresql://from-a-file/x\n")
    del (environ := dict(REQUIRED))["HOOKLEDGER_DATABASE_URL"]
    settings = load(ExampleSettings, environ | {"HOOKLEDGER_DATABASE_URL_FILE": str(mounted)})
    assert settings.database_url == "postgresql://from-a-file/x"


# What is refused, and how


def test_an_unknown_setting_is_refused_by_its_name() -> None:
    assert refusal(PROT="8080").startswith("HOOKLEDGER_PROT is not a setting of Hookledger")


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("DATABASE_URI", "DATABASE_URL"),
        ("DATABSE_URL", "DATABASE_URL"),
        ("DATABASEURL", "DATABASE_URL"),
        ("DATABASE_URL_FIEL", "DATABASE_URL_FILE"),
        ("MASTERKEY_FILE", "MASTER_KEY_FILE"),
        ("LOGLEVEL", "LOG_LEVEL"),
        ("log_levle", "LOG_LEVEL"),
        ("MAX_CONCURENCY", "MAX_CONCURRENCY"),
    ],
)
def test_an_unknown_setting_is_refused_with_the_one_that_was_meant(typed: str, meant: str) -> None:
    assert refusal(**{typed: "x"}) == (
        f"HOOKLEDGER_{typed} is not a setting of Hookledger; did you mean HOOKLEDGER_{meant}?"
    )


@pytest.mark.parametrize("typed", ["COLOUR", "X", "", "RETRIES_AT_MOST"])
def test_nothing_is_suggested_where_nothing_is_near(typed: str) -> None:
    assert refusal(**{typed: "x"}).endswith("is not a setting of Hookledger; --help lists those of this service")


def test_a_refusal_does_not_show_the_value() -> None:
    assert "p4ssword" not in refusal(DATABASE_ULR="postgresql://u:p4ssword@h/d")


def test_a_missing_setting_is_named_with_its_meaning() -> None:
    with pytest.raises(SettingsError) as refused:
        load(ExampleSettings, {})
    assert str(refused.value).startswith("HOOKLEDGER_")
    assert "is not set: " in str(refused.value)


def test_an_empty_environment_names_the_database_first() -> None:
    del (environ := dict(REQUIRED))["HOOKLEDGER_DATABASE_URL"]
    with pytest.raises(SettingsError, match=r"^HOOKLEDGER_DATABASE_URL is not set: Postgres"):
        load(ExampleSettings, environ)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PORT", "http"),
        ("PORT", "-1"),
        ("PORT", "65536"),
        ("PORT", ""),
        ("DEV", "perhaps"),
        ("LOG_LEVEL", "loud"),
        ("AMQP_PREFIX", "with spaces"),
        ("AMQP_PREFIX", ""),
        ("STOP_GRACE_MS", "-5"),
        ("STOP_GRACE_MS", "1.5"),
    ],
)
def test_an_ill_typed_setting_is_refused_in_one_line_that_names_it(name: str, value: str) -> None:
    reason = refusal(**{name: value})
    assert reason.startswith(f"HOOKLEDGER_{name}: ")
    assert "\n" not in reason


def test_a_setting_and_its_file_together_are_refused(tmp_path: Path) -> None:
    mounted = tmp_path / "port"
    mounted.write_text("1")
    reason = refusal(PORT="1", PORT_FILE=str(mounted))
    assert "HOOKLEDGER_PORT and HOOKLEDGER_PORT_FILE" in reason


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    reason = refusal(PORT_FILE=str(tmp_path / "missing"))
    assert reason.startswith("HOOKLEDGER_PORT_FILE: ")
    assert "cannot be read: No such file" in reason


def test_a_file_that_is_not_text_is_named(tmp_path: Path) -> None:
    mounted = tmp_path / "port"
    mounted.write_bytes(b"\xff\xfe")
    assert refusal(PORT_FILE=str(mounted)).endswith("cannot be read: not text")


# Values with a form of their own


def test_networks_are_listed_with_commas() -> None:
    assert parse_networks("10.0.0.0/8, fd00::/8,") == (ip_network("10.0.0.0/8"), ip_network("fd00::/8"))
    assert parse_networks("") == ()


@pytest.mark.parametrize("text", ["10.0.0.1/8", "everything", "10.0.0.0/33"])
def test_what_is_no_network_is_refused(text: str) -> None:
    with pytest.raises(SettingsError, match=r"^HOOKLEDGER_ALLOW_NETWORKS: "):
        parse_networks(text)


@pytest.mark.parametrize("text", ["", "short", base64.b64encode(bytes(31)).decode(), "not base64!"])
def test_a_bad_master_key_is_refused_without_being_shown(text: str) -> None:
    with pytest.raises(SettingsError, match=r"^HOOKLEDGER_MASTER_KEY: ") as refused:
        parse_master_keys(text)
    assert not text or text not in str(refused.value)


# Help


def test_help_lists_each_setting_with_type_default_and_meaning() -> None:
    text = help_text(ExampleSettings, "hookledger-example", "Shows help.")
    assert text.startswith("usage: hookledger-example\n\nShows help.\n")
    for name in ExampleSettings.__struct_fields__:
        assert f"HOOKLEDGER_{name.upper()}\n" in text
    assert "base64 of 32 random bytes (str, required)" in text
    assert "port to listen on (int, default 8080)" in text
    assert "whether anything goes (1 or true, 0 or false, default False)" in text
    assert "(debug or info or warning or error, default 'info')" in text


def test_every_common_setting_has_a_meaning() -> None:
    assert "      (" not in help_text(CommonSettings, "hookledger", "Shows help.")
