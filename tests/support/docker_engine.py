"""A Docker Engine for machines without one: the part of its HTTP API that the `docker` package asks, on a Unix socket.

Its containers of Postgres and RabbitMQ are this machine's own servers, so a test that walks through it ends at real ones.
Source: Docker Engine API v1.44, https://docs.docker.com/reference/api/engine/version/v1.44/.
"""

import json
import re
import secrets
import shutil
import socketserver
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any, TypeAlias
from urllib.parse import parse_qs, urlsplit

from deploy.stack import postgres, rabbitmq, rabbitmq_binaries
from deploy.stack.places import cache_folder, make_folder, write_record
from deploy.stack.server import Server
from deploy.stack.servers import quiet

Answer: TypeAlias = tuple[int, Any]
NO_CONTENT: Answer = (204, None)


class RefusedError(Exception):
    """What the daemon answers with an error's status and message."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(slots=True, kw_only=True)
class Contained:
    """A container, and the server that stands for what would be in it."""

    id: str
    name: str
    spec: dict[str, Any]
    folder: Path
    server: Server
    starting: threading.Thread | None = None

    def start(self) -> None:
        """Begin to start, and return before the server answers, as Docker does."""
        self.starting = threading.Thread(target=self.server.start)
        self.starting.start()

    def settled(self) -> Server:
        """The server, neither starting nor not."""
        if self.starting:
            self.starting.join()
        return self.server

    @property
    def running(self) -> bool:
        """Whether it runs, be it that its server does not answer yet."""
        return self.server.pid is not None or bool(self.starting and self.starting.is_alive())

    @property
    def ready(self) -> bool:
        """Whether its server answers."""
        return self.server.pid is not None and not (self.starting and self.starting.is_alive())


@dataclass(slots=True, kw_only=True)
class DockerEngine:
    """What the daemon knows. `refusal` is what it says to whoever wants to create a container."""

    folder: Path
    refusal: str = ""
    asked: list[str] = field(default_factory=list)
    containers: dict[str, Contained] = field(default_factory=dict)
    pulled: set[str] = field(default_factory=set)
    executions: dict[str, int] = field(default_factory=dict)

    @property
    def socket(self) -> Path:
        """Where it listens."""
        return self.folder / "docker.sock"

    def answer(self, method: str, target: str, body: Any) -> Answer:
        """The answer to one request, its version taken off the path."""
        parts = urlsplit(target)
        path = re.sub(r"^/v[0-9.]+", "", parts.path)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        self.asked.append(f"{method} {path}")
        for pattern, operation in _OPERATIONS.items():
            found = re.fullmatch(pattern, f"{method} {path}")
            if found:
                return operation(self, query, body, *found.groups())
        raise RefusedError(404, f"page not found: {method} {path}")

    def find(self, name: str) -> Contained:
        """A container by its id or name."""
        for contained in self.containers.values():
            if name in {contained.id, contained.name}:
                return contained
        raise RefusedError(404, f"No such container: {name}")

    # What is asked of it

    def image(self, _query: dict[str, str], _body: Any, name: str) -> Answer:
        if name not in self.pulled:
            raise RefusedError(404, f"No such image: {name}")
        return 200, {"Id": name}

    def pull(self, query: dict[str, str], _body: Any) -> Answer:
        self.pulled.add(f"{query['fromImage']}:{query['tag']}")
        return 200, {"status": "Pull complete"}

    def create(self, query: dict[str, str], body: Any) -> Answer:
        if self.refusal:
            raise RefusedError(500, self.refusal)
        if any(contained.name == query["name"] for contained in self.containers.values()):
            raise RefusedError(409, f"The container name {query['name']} is already in use")
        identity = secrets.token_hex(32)
        folder = make_folder(self.folder / identity[:12])
        self.containers[identity] = Contained(
            id=identity, name=query["name"], spec=body, folder=folder, server=_server(folder, body)
        )
        return 201, {"Id": identity, "Warnings": []}

    def inspect(self, _query: dict[str, str], _body: Any, name: str) -> Answer:
        found = self.find(name)
        state = {"Status": "running" if found.running else "exited", "Running": found.running}
        return 200, {"Id": found.id, "Name": f"/{found.name}", "State": state, "Config": found.spec}

    def start(self, _query: dict[str, str], _body: Any, name: str) -> Answer:
        self.find(name).start()
        return NO_CONTENT

    def stop(self, _query: dict[str, str], _body: Any, name: str) -> Answer:
        self.find(name).settled().stop()
        return NO_CONTENT

    def kill(self, _query: dict[str, str], _body: Any, name: str) -> Answer:
        self.find(name).settled().kill()
        return NO_CONTENT

    def remove(self, query: dict[str, str], _body: Any, name: str) -> Answer:
        found = self.find(name)
        if found.running and query.get("force") != "True":
            raise RefusedError(409, "cannot remove a running container")
        found.settled().kill()
        found.server.stop()  # what a container's end takes along
        shutil.rmtree(found.folder)
        del self.containers[found.id]
        return NO_CONTENT

    def prepare_execution(self, _query: dict[str, str], body: Any, name: str) -> Answer:
        found = self.find(name)
        if not found.running:
            raise RefusedError(409, f"container {name} is not running")
        identity = secrets.token_hex(8)
        known = body["Cmd"][0] in {"pg_isready", "rabbitmq-diagnostics"}
        self.executions[identity] = (0 if found.ready else 1) if known else 127
        return 201, {"Id": identity}

    def execute(self, _query: dict[str, str], _body: Any, _identity: str) -> Answer:
        return 200, b""  # what it would print

    def execution(self, _query: dict[str, str], _body: Any, identity: str) -> Answer:
        return 200, {"ExitCode": self.executions[identity]}


_OPERATIONS: dict[str, Callable[..., Answer]] = {
    r"GET /version": lambda *_: (200, {"ApiVersion": "1.44"}),
    r"GET /_ping": lambda *_: (200, b"OK"),
    r"GET /images/(.+)/json": DockerEngine.image,
    r"POST /images/create": DockerEngine.pull,
    r"POST /containers/create": DockerEngine.create,
    r"GET /containers/([^/]+)/json": DockerEngine.inspect,
    r"POST /containers/([^/]+)/start": DockerEngine.start,
    r"POST /containers/([^/]+)/stop": DockerEngine.stop,
    r"POST /containers/([^/]+)/kill": DockerEngine.kill,
    r"DELETE /containers/([^/]+)": DockerEngine.remove,
    r"POST /containers/([^/]+)/exec": DockerEngine.prepare_execution,
    r"POST /exec/([^/]+)/start": DockerEngine.execute,
    r"GET /exec/([^/]+)/json": DockerEngine.execution,
}


def _server(folder: Path, spec: dict[str, Any]) -> Server:
    """The server of an image, with the password of the environment, on the port that is published on loopback."""
    [[binding]] = spec["HostConfig"]["PortBindings"].values()
    assert binding["HostIp"] == "127.0.0.1", "it would be open to the network"
    settings = dict(pair.split("=", 1) for pair in spec["Env"])
    password = settings.get("POSTGRES_PASSWORD") or settings["RABBITMQ_DEFAULT_PASS"]
    write_record(folder / "server.json", {"password": password, "port": binding["HostPort"]})
    if spec["Image"].startswith("postgres:"):
        binaries = postgres.binaries()
        assert binaries, "the wheel is a development dependency"
        return postgres.EmbeddedPostgres(folder=folder, bin=binaries, say=quiet)
    cache = cache_folder()
    found = rabbitmq_binaries.installed() or rabbitmq_binaries.unpacked(cache) or rabbitmq_binaries.unpack(cache, quiet)
    return rabbitmq.LocalRabbitMQ(folder=folder, binaries=found, say=quiet)


class _Server(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True
    engine: DockerEngine


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def log_message(self, *_: object) -> None:
        """Nothing: a socket without an address cannot be logged."""

    def handle_one_request(self) -> None:
        """One request for each connection."""
        self.close_connection = True
        self.raw_requestline = self.rfile.readline()
        if not self.raw_requestline or not self.parse_request():
            return
        self.close_connection = True
        size = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(size)) if size else None
        try:
            status, answer = self.server.engine.answer(self.command, self.path, body)
        except RefusedError as refusal:
            status, answer = refusal.status, {"message": str(refusal)}
        data = answer if isinstance(answer, bytes) else b"" if answer is None else json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@contextmanager
def docker_engine(folder: Path) -> Iterator[DockerEngine]:
    """An engine that listens; what still runs in it at the end is stopped."""
    engine = DockerEngine(folder=folder)
    with _Server(str(engine.socket), _Handler) as server:
        server.engine = engine
        listening = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        listening.start()
        try:
            yield engine
        finally:
            server.shutdown()
            listening.join()
            for contained in engine.containers.values():
                contained.settled().stop()
