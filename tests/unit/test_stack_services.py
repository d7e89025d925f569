"""The services as processes: what they are given, when they count as ready, how they end."""

import base64
import os
import socket
import stat
from pathlib import Path

import pytest

from deploy.stack.errors import StackError
from deploy.stack.installation import PORTS, Installation, choose_ports, key_works, master_key
from deploy.stack.isolation import Isolation
from deploy.stack.ports import free_port
from deploy.stack.services import running_port, stop_services

# Stands for a service: answers /readyz after FAKE_READY_AFTER tries, takes one API key, writes its settings.
FAKE_SERVICE = """
import http.server, os, sys
names = sorted(name for name in os.environ if name.startswith("HOOKLEDGER_"))
print("settings", *names)
if "HOOKLEDGER_FAIL" in os.environ:
    print("HOOKLEDGER_FAIL is not a setting")
    sys.exit(2)
waits = int(os.environ.get("HOOKLEDGER_READY_AFTER", "0"))
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        global waits
        waits -= 1
        known = self.headers.get("Authorization", "Bearer key") == "Bearer key"
        self.send_response(503 if waits >= 0 else 200 if known else 401)
        self.end_headers()
address = os.environ["HOOKLEDGER_HOST"], int(os.environ["HOOKLEDGER_PORT"])
http.server.ThreadingHTTPServer(address, Answer).serve_forever()
"""
FAKE_ADMIN = """
import os, sys
with open(os.environ["FAKE_ADMIN_CALLS"], "a") as calls:
    calls.write(" ".join(sys.argv[1:]) + "\\n")
if sys.argv[1] == "migrate" and os.environ["HOOKLEDGER_DATABASE_URL"].endswith("broken"):
    print("migrate: reading", "hookledger: this database is newer than this version", sep="\\n", file=sys.stderr)
    sys.exit(1)
if sys.argv[3:4] == ["org_gone"]:
    sys.exit(2)
print({"migrate": "", "organisation": "org_7", "key": "key"}[sys.argv[1]])
"""


@pytest.fixture
def installation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Installation:
    for name, program in {**dict.fromkeys(PORTS, FAKE_SERVICE), "admin": FAKE_ADMIN}.items():
        package = tmp_path / "code" / "services" / name
        package.mkdir(parents=True)
        (package / "__init__.py").touch()
        (package / "__main__.py").write_text(program)
    (tmp_path / "code" / "services" / "__init__.py").touch()
    monkeypatch.setenv("FAKE_ADMIN_CALLS", str(tmp_path / "calls"))
    monkeypatch.setenv("HOOKLEDGER_STRAY", "of the caller's shell")
    corner = Isolation(database_url="postgresql://h/d", amqp_url="amqp://pro%40ducer:p@h/", amqp_prefix="corner")
    return Installation(folder=tmp_path / "state", corner=corner, code=tmp_path / "code")


def test_a_service_gets_exactly_its_own_settings(installation: Installation) -> None:
    ingress = installation.services()["ingress"]
    ingress.start()
    ingress.wait_ready()
    ingress.stop()
    common = "AMQP_PREFIX AMQP_URL DATABASE_URL DEV HOST MASTER_KEY PORT REGISTRY_URL"
    expected = " ".join(f"HOOKLEDGER_{name}" for name in common.split())
    assert ingress.log.read_text().splitlines()[0] == f"settings {expected}"


def test_a_service_is_ready_only_when_it_says_so(installation: Installation) -> None:
    registry = installation.service("registry", settings={"READY_AFTER": "3"})
    registry.start()
    registry.wait_ready()
    registry.stop()
    assert registry.log.read_text().count(" 503 ") == 3


def test_a_service_that_stops_at_start_is_told_with_its_last_words(installation: Installation) -> None:
    registry = installation.service("registry", settings={"FAIL": "1"})
    registry.start()
    with pytest.raises(
        StackError, match=r"^registry stopped at start: HOOKLEDGER_FAIL is not a setting \(log: "
    ) as told:
        registry.wait_ready()
    assert len(told.value.__notes__) == 1


def test_a_service_that_does_not_get_ready_is_told_with_what_it_answers(installation: Installation) -> None:
    registry = installation.service("registry", settings={"READY_AFTER": "1000000"})
    registry.start()
    with pytest.raises(StackError, match=r"^registry was not ready in 1 s \(/readyz said 503\)"):
        registry.wait_ready(timeout_s=1)
    registry.kill()


def test_starting_twice_changes_nothing_but_other_settings_start_it_anew(installation: Installation) -> None:
    port = free_port()
    registry = installation.service("registry", port=port)
    registry.start()
    registry.wait_ready()
    pid = registry.pid
    registry.start()
    assert registry.pid == pid
    other = installation.service("registry", port=port, settings={"LOG_LEVEL": "debug"})
    other.start()
    other.wait_ready()
    assert other.pid != pid
    other.stop()


def test_a_killed_service_starts_again_on_its_port(installation: Installation) -> None:
    dispatcher = installation.service("dispatcher")
    dispatcher.start()
    dispatcher.wait_ready()
    pids = [dispatcher.pid]
    dispatcher.kill()
    pids.append(dispatcher.pid)
    dispatcher.start()
    dispatcher.wait_ready()
    pids.append(dispatcher.pid)
    assert pids[1] is None
    assert len(set(pids)) == 3
    dispatcher.stop()


def test_replicas_run_side_by_side_and_all_are_stopped(installation: Installation) -> None:
    replicas = [installation.service("dispatcher", replica=name) for name in ("", "2")]
    for replica in replicas:
        replica.start()
    for replica in replicas:
        replica.wait_ready()
    assert stop_services(installation.folder) == ["dispatcher", "dispatcher-2"]
    assert [replica.pid for replica in replicas] == [None, None]
    assert stop_services(installation.folder) == []


def test_a_service_has_a_session_of_its_own(installation: Installation) -> None:
    registry = installation.service("registry")
    registry.start()
    assert registry.pid
    assert os.getsid(registry.pid) != os.getsid(0)
    registry.kill()


# Ports


def test_a_service_whose_usual_port_is_taken_moves_and_says_so(
    installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = {name: free_port() for name in PORTS}
    monkeypatch.setattr("deploy.stack.installation.PORTS", free)
    said: list[str] = []
    with socket.create_server(("0.0.0.0", free["ingress"])):
        chosen = choose_ports(installation.folder, said.append)
    assert chosen["ingress"] != free["ingress"]
    assert {chosen["registry"], chosen["dispatcher"]} == {free["registry"], free["dispatcher"]}
    assert said == [f"ingress: port {free['ingress']} is taken, moving to {chosen['ingress']}"]


def test_a_service_that_runs_keeps_its_port(installation: Installation) -> None:
    registry = installation.service("registry")
    registry.start()
    assert running_port(installation.folder, "registry") == registry.port
    assert choose_ports(installation.folder, lambda _line: None)["registry"] == registry.port
    registry.kill()


# Keys


def test_the_master_key_is_made_once_and_private(tmp_path: Path) -> None:
    key = master_key(tmp_path / "state")
    assert len(base64.b64decode(key, validate=True)) == 32
    assert master_key(tmp_path / "state") == key
    assert stat.S_IMODE((tmp_path / "state" / "master-key").stat().st_mode) == 0o600


def test_the_first_key_belongs_to_an_organisation_of_the_brokers_user(
    installation: Installation, tmp_path: Path
) -> None:
    installation.migrate()
    assert installation.create_key() == "key"
    assert (tmp_path / "calls").read_text().splitlines() == [
        "migrate",
        "organisation create default --secret-reveal always --amqp-user pro@ducer",
        "key create org_7 --scope admin",
    ]


def test_another_key_belongs_to_the_same_organisation_while_that_exists(
    installation: Installation, tmp_path: Path
) -> None:
    installation.create_key()
    installation.create_key()
    (installation.folder / "organisation").write_text("org_gone")
    installation.create_key()
    said = [line.split()[:3] for line in (tmp_path / "calls").read_text().splitlines()]
    create, key, gone = ["organisation", "create", "default"], ["key", "create", "org_7"], ["key", "create", "org_gone"]
    assert said == [create, key, key, gone, create, key]


def test_a_command_that_fails_is_told_by_its_last_line(installation: Installation) -> None:
    corner = Isolation(database_url="postgresql://h/broken", amqp_url="amqp://h/", amqp_prefix="corner")
    broken = Installation(folder=installation.folder, corner=corner, code=installation.code)
    with pytest.raises(StackError, match=r"^`hookledger migrate` failed: this database is newer than") as told:
        broken.migrate()
    assert told.value.__notes__ == ["migrate: reading"]


def test_a_key_of_another_database_does_not_work(installation: Installation) -> None:
    registry = installation.service("registry")
    registry.start()
    registry.wait_ready()
    assert key_works(registry.url, "key")
    assert not key_works(registry.url, "another")
    registry.kill()
    assert not key_works(registry.url, "key")


def test_a_service_that_is_asked_to_end_is_given_time(installation: Installation, tmp_path: Path) -> None:
    package = tmp_path / "code" / "services" / "registry"
    program = (
        "import signal, time\nsignal.signal(signal.SIGTERM, lambda *_: (time.sleep(0.5), print('drained'), exit()))\n"
    )
    (package / "__main__.py").write_text(program + "print('waiting')\ntime.sleep(60)\n")
    registry = installation.service("registry")
    registry.start()
    while not registry.log.exists() or "waiting" not in registry.log.read_text():
        pass
    registry.stop()
    assert registry.log.read_text().split() == ["waiting", "drained"]
