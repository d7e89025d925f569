"""The commands themselves: `python3 bootstrap.py`, `python -m deploy.stack`, and the files for Docker."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from deploy.stack import logs
from deploy.stack.places import CHECKOUT
from deploy.stack.suite import LANES

BOOTSTRAP = CHECKOUT / "deploy" / "stack" / "bootstrap.py"
COMPOSE = (CHECKOUT / "deploy" / "compose.yaml").read_text()
DOCKERFILE = (CHECKOUT / "deploy" / "Dockerfile").read_text()


def _old_python() -> str | None:
    """A Python that is too old, if this machine has one that runs."""
    for folder in (Path("/usr/bin"), *Path.home().glob(".pyenv/versions/*/bin")):
        for minor in range(6, 11):
            found = shutil.which(f"python3.{minor}", path=str(folder))
            if found:
                return found
    return None


def test_the_bootstrap_has_only_syntax_that_old_pythons_read() -> None:
    compile(BOOTSTRAP.read_text(), str(BOOTSTRAP), "exec", dont_inherit=True)
    assert not re.search(r"\bf['\"]|\bmatch\b|:=|__future__", BOOTSTRAP.read_text())


def test_a_python_that_is_too_old_is_told_in_one_line() -> None:
    old = _old_python()
    if not old:
        pytest.skip("no Python older than 3.11 on this machine")
    done = subprocess.run([old, BOOTSTRAP], capture_output=True, text=True, check=False, env={"PATH": "/nonexistent"})
    assert done.returncode == 2
    assert re.fullmatch(r"setup: Hookledger needs Python 3\.11 or newer, and python3 is 3\.\d+\.\d+: .+\n", done.stderr)


def _stack(*words: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "deploy.stack", *words],
        capture_output=True,
        text=True,
        check=False,
        cwd=CHECKOUT,
        env=os.environ | environ,
    )


@pytest.mark.parametrize("words", [[], ["frobnicate"], ["up", "--fast"]])
def test_bad_usage_ends_with_exit_code_2(words: list[str]) -> None:
    done = _stack(*words)
    assert done.returncode == 2
    assert "usage: python -m deploy.stack" in done.stderr


def test_every_command_explains_itself() -> None:
    done = _stack("--help")
    assert done.returncode == 0
    for command in ("up", "down", "status", "logs"):
        assert re.search(rf"^    {command} +\w", done.stdout, flags=re.MULTILINE)


def test_an_environment_that_cannot_hold_a_stack_ends_with_exit_code_2_and_one_line() -> None:
    done = _stack(
        "up", HOOKLEDGER_DATABASE_URL="mysql://u:secret@h/d", HOOKLEDGER_AMQP_URL="amqp://u:secret@127.0.0.1:1/"
    )
    assert done.returncode == 2
    assert re.fullmatch(r"stack: HOOKLEDGER_DATABASE_URL is not a URL such as .+\n", done.stderr)
    assert "secret" not in done.stderr + done.stdout


def test_the_ends_of_the_logs_are_shown_side_by_side(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert not logs.show(tmp_path, lines=2)
    (tmp_path / "log").mkdir()
    (tmp_path / "log" / "ingress.log").write_text("one\ntwo\n\nthree\n")
    (tmp_path / "log" / "registry.log").write_text("only\n")
    assert logs.show(tmp_path, lines=2)
    assert capsys.readouterr().out.splitlines() == ["ingress    | two", "ingress    | three", "registry   | only"]


def test_make_names_every_target_with_what_it_is_for() -> None:
    done = subprocess.run(
        ["make", "--no-print-directory", "help"], capture_output=True, text=True, check=True, cwd=CHECKOUT
    )
    named = {line.split()[1] for line in done.stdout.splitlines()}
    assert named == {
        "help", "setup", "demo", "up", "down", "logs", "test", "lint", "bench", "bench-growth", "bench-page",
        "bench-lists", "bench-dispatch", "faults", "faults-mutants", "configuration", "manifests",
    }  # fmt: skip


def test_the_suite_runs_every_test_once() -> None:
    for path in (CHECKOUT / "tests").rglob("test_*.py"):
        lanes = [lane for lane in LANES if any(path.is_relative_to(CHECKOUT / folder) for folder in lane.folders)]
        assert len(lanes) == 1, path


# Docker, which cannot be run everywhere


def test_there_is_one_image_for_each_service() -> None:
    for service in ("ingress", "registry", "dispatcher"):
        stage = DOCKERFILE.partition(f"FROM base AS {service}\n")[2].partition("\nFROM ")[0]
        assert f'ENTRYPOINT ["hookledger-{service}"]' in stage
        assert "HEALTHCHECK" in stage
        port = re.search(r"EXPOSE (\d+)", stage)
        assert port
        assert f"HOOKLEDGER_PORT={port[1]}" in stage
        assert f"target: {service}\n" in COMPOSE
        assert f'ports: ["127.0.0.1:{port[1]}:{port[1]}"]' in COMPOSE


def test_images_run_as_a_numbered_user_and_install_by_hash() -> None:
    assert re.search(r"^USER \d+:\d+$", DOCKERFILE, flags=re.MULTILINE)
    assert DOCKERFILE.count("--require-hashes") == 2
    assert not re.search(r"^(CMD|ENTRYPOINT) [^\[]", DOCKERFILE, flags=re.MULTILINE)


def test_compose_waits_for_the_servers_and_the_migrations_and_holds_no_password() -> None:
    assert COMPOSE.count("condition: service_healthy") == 2
    assert "condition: service_completed_successfully" in COMPOSE
    assert 'command: ["migrate"]' in COMPOSE
    assert not re.search(r"PASS(WORD)?: (?!\$\{\w+:\?)", COMPOSE)
    assert "\t" not in COMPOSE
