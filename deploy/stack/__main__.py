"""`python -m deploy.stack up | down | status | logs`: the local stack in the background."""

import argparse
import contextlib
import os
import re
import shlex
import shutil
import sys
import time
from pathlib import Path

from deploy.stack import logs
from deploy.stack.errors import StackError
from deploy.stack.installation import PORTS, Installation, choose_ports, key_works
from deploy.stack.isolation import Isolation
from deploy.stack.places import HOME, locked, write_private
from deploy.stack.report import complain, say
from deploy.stack.servers import Servers, every_kind, stop_abandoned, stop_servers
from deploy.stack.services import Service, running_port, stop_services

ENV_FILE = HOME / "env"


def main() -> int:
    """Run one command; exit code 2 for bad usage, or for an environment that cannot hold a stack."""
    arguments = _parser().parse_args()
    try:
        match arguments.command:
            case "up":
                return up()
            case "down":
                return down(wipe=arguments.wipe)
            case "status":
                return status()
            case _:
                return show_logs(follow=arguments.follow)
    except StackError as error:
        for line in getattr(error, "__notes__", []):
            print(f"  {line}", file=sys.stderr)
        complain(str(error))
        return 2
    except KeyboardInterrupt:
        if arguments.command == "up":
            complain("interrupted: `make down` stops what was started")
        return 130


def up() -> int:
    """Start what is not running, and write where everything is to `.hookledger/env`."""
    began = time.monotonic()
    with locked(HOME / "up.lock"):
        servers = Servers.start(HOME, say=say)
        corner = Isolation(database_url=servers.database_url, amqp_url=servers.amqp_url, amqp_prefix="hookledger")
        installation = Installation(folder=HOME, corner=corner)
        installation.migrate()
        services = installation.services(choose_ports(HOME, say))
        for service in services.values():
            service.start()
        for service in services.values():
            _await(service)
        key = _known_key()
        if not key or not key_works(services["registry"].url, key):
            key = installation.create_key()
        _write_env(corner, services, key)
    say(f"up in {time.monotonic() - began:.1f} s; for its URLs and an API key: . {_shown(ENV_FILE)}")
    return 0


def down(*, wipe: bool) -> int:
    """Stop all that was started here, also by an `up` that was cut short; data stays unless `wipe`."""
    with locked(HOME / "up.lock"):
        stopped = stop_services(HOME)
        ours = any(server.url for server in every_kind(HOME))
        stopped += [server.title for server in every_kind(HOME) if server.pid]
        stop_servers(HOME, wipe=wipe)
        stop_abandoned(say)
        if wipe and ours:  # on a database of somebody else's, secrets stay that only this key opens
            for file in ("env", "master-key", "organisation"):
                (HOME / file).unlink(missing_ok=True)
            shutil.rmtree(HOME / "log", ignore_errors=True)
    for name in stopped:
        say(f"{name} stopped")
    say("down; its data is gone" if wipe and ours else "down; its data stays (`make down WIPE=1` removes ours)")
    return 0


def status() -> int:
    """Say what runs; exit code 1 unless all three services do."""
    for server in every_kind(HOME):
        if server.pid:
            say(f"{server.title}, process {server.pid}")
    ports = {name: running_port(HOME, name) for name in PORTS}
    for name, port in ports.items():
        say(f"{name} on http://127.0.0.1:{port}" if port else f"{name} is not running")
    return 0 if all(ports.values()) else 1


def show_logs(*, follow: bool) -> int:
    """Print the ends of the services' logs, and, if asked, what follows."""
    if not logs.show(HOME, lines=20) and not follow:
        say("no logs yet: `make up` starts the stack")
    if follow:
        with contextlib.suppress(KeyboardInterrupt):
            logs.follow(HOME)
    return 0


def _await(service: Service) -> None:
    began = time.monotonic()
    service.wait_ready()
    say(f"{service.label} on {service.url}  {time.monotonic() - began:.1f} s")


def _known_key() -> str | None:
    """The API key that an earlier `up` wrote."""
    with contextlib.suppress(FileNotFoundError):
        found = re.search(r"^export HOOKLEDGER_API_KEY=(.+)$", ENV_FILE.read_text(), flags=re.MULTILINE)
        return shlex.split(found[1])[0] if found else None
    return None


def _write_env(corner: Isolation, services: dict[str, Service], key: str) -> None:
    values = {
        "HOOKLEDGER_URL": services["ingress"].url,
        "HOOKLEDGER_INGRESS_URL": services["ingress"].url,
        "HOOKLEDGER_REGISTRY_URL": services["registry"].url,
        "HOOKLEDGER_DISPATCHER_URL": services["dispatcher"].url,
        "HOOKLEDGER_DATABASE_URL": corner.database_url,
        "HOOKLEDGER_AMQP_URL": corner.amqp_url,
        "HOOKLEDGER_API_KEY": key,
    }
    write_private(ENV_FILE, "".join(f"export {name}={shlex.quote(value)}\n" for name, value in values.items()))


def _shown(path: Path) -> str:
    """The path as a user would type it here."""
    return shlex.quote(os.path.relpath(path)) if path.is_relative_to(Path.cwd()) else shlex.quote(str(path))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m deploy.stack", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    commands.add_parser("up", help="start the stack, or what of it is not running; writes .hookledger/env")
    stop = commands.add_parser("down", help="stop everything that was started here")
    stop.add_argument("--wipe", action="store_true", help="remove its data too")
    commands.add_parser("status", help="say what runs")
    show = commands.add_parser("logs", help="show the ends of the services' logs")
    show.add_argument("-f", "--follow", action="store_true", help="and what they write from now on")
    return parser


if __name__ == "__main__":
    sys.exit(main())
