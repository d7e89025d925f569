"""deploy/Dockerfile: what its text promises. What the images hold is run by tests/e2e/test_installed.py."""

import re
import tomllib
from dataclasses import dataclass, field

import pytest

from deploy.stack.installation import PORTS
from deploy.stack.places import CHECKOUT

TEXT = (CHECKOUT / "deploy" / "Dockerfile").read_text()
IGNORED = (CHECKOUT / "deploy" / "Dockerfile.dockerignore").read_text().splitlines()
PROJECT = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]
BUILD_TOOLS = re.compile(r"\b(?:apt-get|apk|gcc|make|pip (?!uninstall)|hatchling|curl|git)\b")


@dataclass(frozen=True, slots=True)
class Stage:
    """One FROM and what follows it."""

    base: str
    steps: list[tuple[str, str]] = field(default_factory=list)

    def having(self, instruction: str) -> list[str]:
        """The arguments of these instructions."""
        return [rest for word, rest in self.steps if word == instruction]


def stages() -> dict[str, Stage]:
    """By name, in order."""
    found: dict[str, Stage] = {}
    last = None
    joined = re.sub(r"\\\n\s*", "", re.sub(r"^#.*\n", "", TEXT, flags=re.MULTILINE))
    for line in filter(None, joined.splitlines()):
        word, _, rest = line.partition(" ")
        if word == "FROM":
            base, _, name = rest.partition(" AS ")
            last = found[name] = Stage(base)
        elif last is not None:
            last.steps.append((word, rest))
    return found


def shipped(name: str) -> list[Stage]:
    """A target and the stages that it is made on."""
    stage = stages()[name]
    return [stage, *(shipped(stage.base) if stage.base in stages() else [])]


def test_every_image_begins_with_one_slim_python_pinned_by_its_content() -> None:
    assert re.findall(r"^ARG PYTHON=(\S+)$", TEXT, flags=re.MULTILINE) == [
        re.search(r"python:3\.11-slim-bookworm@sha256:[0-9a-f]{64}", TEXT)[0]  # type: ignore[index]
    ]
    outside = {stage.base for stage in stages().values() if stage.base not in stages()}
    assert outside == {"${PYTHON}"}


@pytest.mark.parametrize("service", PORTS)
def test_a_target_is_labelled_runs_as_a_numbered_user_and_starts_its_service(service: str) -> None:
    stage = stages()[service]
    assert stage.having("ENTRYPOINT") == [f'["hookledger-{service}"]']
    assert f"hookledger-{service}" in PROJECT["scripts"]
    assert stage.having("EXPOSE") == [str(PORTS[service])]
    users = [user for one in shipped(service) for user in one.having("USER")]
    assert users == ["10001:10001"]
    labels = " ".join(label for one in shipped(service) for label in one.having("LABEL"))
    for name in ("title", "description", "source", "licenses", "version", "revision"):
        assert f"org.opencontainers.image.{name}=" in labels
    assert f"ARG VERSION={PROJECT['version']} " in TEXT
    assert "example.com" not in labels


@pytest.mark.parametrize("service", PORTS)
def test_nothing_is_built_or_installed_in_what_is_shipped(service: str) -> None:
    for stage in shipped(service):
        for run in stage.having("RUN"):
            assert not BUILD_TOOLS.search(run), run
        assert stage.having("COPY") in ([], ["--from=build /opt/hookledger /opt/hookledger"])
        assert stage.having("ADD") == []


def test_what_runs_is_written_as_a_list_so_that_signals_reach_it() -> None:
    for stage in stages().values():
        for command in (*stage.having("CMD"), *stage.having("ENTRYPOINT")):
            assert command.startswith("["), command
    assert stages()["base"].having("STOPSIGNAL") == ["SIGTERM"]


def test_dependencies_come_from_the_lock_files_by_their_hashes() -> None:
    installs = [run for stage in stages().values() for run in stage.having("RUN") if "-r requirements" in run]
    assert len(installs) == 2
    assert all("--require-hashes" in run for run in installs)
    for name in ("requirements.lock", "requirements-dev.lock"):
        text = (CHECKOUT / name).read_text()
        pinned = re.findall(r"^\w\S*==[^\n]*\\\n    --hash=sha256:", text, flags=re.MULTILINE)
        named = re.findall(r"^\w\S*==", text, flags=re.MULTILINE)
        assert pinned
        assert len(pinned) == len(named)


def test_every_file_that_is_copied_is_there_and_sent_to_the_builder() -> None:
    copies = [copy for stage in stages().values() for copy in stage.having("COPY") if "--from=" not in copy]
    for copy in copies:
        for name in copy.split()[:-1]:
            assert (CHECKOUT / name).exists(), name
            assert f"!{name}" in IGNORED
