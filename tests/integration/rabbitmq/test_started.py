"""RabbitMQ as compose and Kubernetes start it: its users are ours, each with its own work, and passwords change."""

import asyncio
import json
import re
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

import aio_pika
import pytest
from aio_pika.exceptions import AMQPConnectionError

from deploy.broker_users import users
from deploy.stack.places import CHECKOUT
from deploy.stack.rabbitmq import LocalRabbitMQ
from deploy.stack.servers import Servers, quiet
from libs.common.rabbitmq.consuming import Incoming
from libs.common.rabbitmq.dead_letters import parked, publisher_of
from libs.common.rabbitmq.topology import Names
from services.admin.dead_letters import dead_letters_of
from tests.conftest import Amqp
from tests.integration.rabbitmq.users import (
    CONSUMES,
    SERVICES,
    WRITES,
    logged_in,
    own_consumers,
    powers,
    ready,
)
from tests.support.compose import COMPOSE, DEPLOY, filled
from tests.support.manifests import rendered, the
from tests.support.patience import eventually

NAMES = Names("hookledger")
IN_COMPOSE = COMPOSE["services"]["rabbitmq"]
IN_KUBERNETES = the(rendered("dev"), "StatefulSet", "rabbitmq")["template"]["spec"]["containers"][0]
PASSWORDS = {name: f"{name.removeprefix('hookledger-')}-Pa55.word_~" for name in users(NAMES)}


def environment(passwords: Mapping[str, str]) -> dict[str, str]:
    """What compose gives the container, with these passwords in deploy/.env."""
    told = {f"{name.upper().replace('-', '_BROKER_', 1)}_PASSWORD": value for name, value in passwords.items()}
    return {name: filled(value, told) for name, value in IN_COMPOSE["environment"].items()}


def start(folder: Path, variables: Mapping[str, str]) -> "subprocess.CompletedProcess[str]":
    """Run deploy/rabbitmq/start.sh, but for the server's own start, which is only said."""
    programs = folder / "bin"
    programs.mkdir(exist_ok=True)
    entrypoint = programs / "docker-entrypoint.sh"
    entrypoint.write_text('#!/bin/sh\necho "starts $*"\nenv\n')
    entrypoint.chmod(0o755)
    return subprocess.run(
        ["sh", str(DEPLOY / "rabbitmq" / "start.sh")],
        env={"PATH": f"{programs}:/usr/bin:/bin", "TMPDIR": str(folder), **variables},
        capture_output=True,
        text=True,
        check=False,
    )


def written(folder: Path) -> dict[str, str]:
    """The definitions that RabbitMQ loads, in their order."""
    return {path.name: path.read_text() for path in sorted((folder / "hookledger").iterdir())}


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """A broker that loaded what the script wrote."""

    broker: LocalRabbitMQ
    folder: Path

    def url(self, user: str, password: str | None = None) -> str:
        """How a user logs in."""
        return logged_in(self.broker.url, user, password or PASSWORDS[user])

    def amqp(self, user: str) -> Amqp:
        """The same, for the platform's own names."""
        return Amqp(url=self.url(user), prefix=NAMES.prefix)


@pytest.fixture(scope="module")
def started(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Started]:
    """A broker of this module's own, at its first start."""
    if not isinstance(servers.broker, LocalRabbitMQ):
        pytest.skip("this needs RabbitMQ's binaries on this machine")
    folder = tmp_path_factory.mktemp("started")
    assert start(folder, environment(PASSWORDS)).returncode == 0
    broker = LocalRabbitMQ(folder=folder / "rabbitmq", binaries=servers.broker.binaries, say=quiet)
    broker.folder.mkdir()
    key, _, path = (DEPLOY / "rabbitmq" / "hookledger.conf").read_text().splitlines()[-1].partition(" = ")
    assert path == "/tmp/hookledger", "where the script writes when nobody says otherwise"  # noqa: S108
    (broker.folder / "advanced.config").write_text(f'[{{rabbit, [{{{key}, "{folder / "hookledger"}"}}]}}].\n')
    try:
        broker.start()
        yield Started(broker=broker, folder=folder)
    finally:
        broker.stop()


# The script


def test_it_leaves_the_server_to_the_images_own_start_and_no_password_in_its_environment(tmp_path: Path) -> None:
    done = start(tmp_path, environment(PASSWORDS))
    assert done.returncode == 0, done.stderr
    first, *rest = done.stdout.splitlines()
    assert first == "starts rabbitmq-server"
    assert not [line for line in rest if "Pa55" in line]
    assert [path.stat().st_mode & 0o077 for path in (tmp_path / "hookledger").iterdir()] == [0, 0]


def test_compose_and_kubernetes_load_the_same(tmp_path: Path) -> None:
    (tmp_path / "compose").mkdir()
    (tmp_path / "kubernetes").mkdir()
    assert IN_COMPOSE["entrypoint"] == IN_KUBERNETES["command"] == ["sh", "/etc/hookledger/start.sh"]
    secret = {f"broker-{name.removeprefix('hookledger-')}": password for name, password in PASSWORDS.items()}
    variables = {entry["name"]: secret[entry["valueFrom"]["secretKeyRef"]["key"]] for entry in IN_KUBERNETES["env"]}
    start(tmp_path / "compose", environment(PASSWORDS))
    start(tmp_path / "kubernetes", variables)
    assert written(tmp_path / "compose") == written(tmp_path / "kubernetes")
    mounted = {mount["mountPath"] for mount in IN_KUBERNETES["volumeMounts"]}
    assert {mount.split(":")[1] for mount in IN_COMPOSE["volumes"]} < mounted
    first = json.loads(written(tmp_path / "compose")["1-users.json"])
    assert {user["name"]: user["password"] for user in first["users"]} == PASSWORDS


@pytest.mark.parametrize("password", ["", 'quo"te', "a b", "a/b", "a\\b", "ä"])
def test_a_password_that_would_break_a_url_or_a_file_is_refused(tmp_path: Path, password: str) -> None:
    done = start(tmp_path, environment(PASSWORDS | {"hookledger-registry": password}))
    assert (done.returncode, done.stdout) == (2, "")
    assert "the password of hookledger-registry has to be" in done.stderr
    assert not password or password not in done.stderr


# The server


def test_nobody_else_can_log_in(started: Started) -> None:
    listed = started.broker.control("list_users", "--no-table-headers")
    assert {line.split()[0] for line in listed.splitlines()} == set(PASSWORDS)


@pytest.mark.parametrize("service", SERVICES)
def test_compose_gives_each_service_its_own_user(service: str) -> None:
    passwords = {f"HOOKLEDGER_BROKER_{service.upper()}_PASSWORD": "its-own"}
    url = urlsplit(filled(COMPOSE["services"][service]["environment"]["HOOKLEDGER_AMQP_URL"], passwords))
    assert (url.username, url.password) == (f"hookledger-{service}", "its-own")
    assert (url.hostname, url.port, url.path) == ("rabbitmq", 5672, "/")


async def test_each_service_does_its_work_and_the_operator_sends_a_dead_letter_again(started: Started) -> None:
    took: list[tuple[str, Incoming]] = []

    def take(place: str, message: Incoming) -> None:
        took.append((place, message))

    async def came(place: str, body: bytes, count: int = 1) -> Incoming:
        def found() -> list[Incoming]:
            return [message for where, message in took if (where, message.body) == (place, body)]

        return (await eventually(lambda: asyncio.sleep(0.01, found()), lambda seen: len(seen) == count))[-1]

    async with (
        ready(started.amqp("hookledger-registry"), "registry") as registry,
        ready(started.amqp("hookledger-ingress"), "ingress", *own_consumers("ingress", NAMES, take)) as ingress,
        ready(
            started.amqp("hookledger-dispatcher"), "dispatcher", *own_consumers("dispatcher", NAMES, take)
        ) as dispatcher,
        await aio_pika.connect(started.url("hookledger-producer")) as producer,
    ):
        exchange = await (await producer.channel()).get_exchange(NAMES.publish, ensure=False)
        await exchange.publish(aio_pika.Message(b"order", user_id="hookledger-producer"), "order.paid")
        published = await came(NAMES.publish_queue, b"order")
        envelope = aio_pika.Message(b"envelope")
        await ingress.send(NAMES.messages, envelope, routing_key=NAMES.messages_queue, mandatory=True)
        await came(NAMES.messages_queue, b"envelope")
        await registry.send(NAMES.registry, aio_pika.Message(b"changed"), mandatory=True)
        await came(NAMES.registry, b"changed", 2)
        for outcomes in (NAMES.deliveries, NAMES.accepted):
            await dispatcher.send(outcomes, aio_pika.Message(b"outcome"), routing_key="any", mandatory=False)

        dead = parked(published, NAMES, reason="why", at=datetime.now(UTC), content_type="text/plain", body=b"order")
        await ingress.send(NAMES.dead, dead, mandatory=True)
        async with dead_letters_of(started.url("hookledger-operator"), NAMES) as letters:
            [letter], _ = await letters.oldest(10)
        async with dead_letters_of(started.url("hookledger-operator"), NAMES) as letters:
            assert await letters.redrive({letter.id}, print)
        again = await came(NAMES.publish_queue, b"order", 2)
        assert publisher_of(again, NAMES) == letter.user == "hookledger-producer"


@pytest.mark.parametrize("user", WRITES)
async def test_everything_else_is_refused(started: Started, user: str) -> None:
    async with (
        ready(started.amqp("hookledger-ingress"), "ingress"),
        ready(started.amqp("hookledger-dispatcher"), "dispatcher"),
    ):
        assert await powers(started.url(user), NAMES) == (WRITES[user], CONSUMES[user], set())


async def test_a_changed_password_is_in_force_after_the_next_start_and_what_was_made_by_hand_stays(
    started: Started,
) -> None:
    started.broker.control("add_user", "billing", "by-hand")
    started.broker.stop()
    assert start(started.folder, environment(PASSWORDS | {"hookledger-ingress": "another"})).returncode == 0
    started.broker.start()
    async with await aio_pika.connect(started.url("hookledger-ingress", "another")):
        pass
    with pytest.raises(AMQPConnectionError):
        await aio_pika.connect(started.url("hookledger-ingress"))
    assert "billing" in started.broker.control("list_users", "--no-table-headers")


def calls(folder: Path) -> list[tuple[list[str], str]]:
    """The words and the standard input of each `rabbitmqctl` of the page's script."""
    page = (CHECKOUT / "docs" / "operations.md").read_text()
    section = page.partition("## The broker's users")[2].partition("\n## ")[0]
    [script] = re.findall(r"^```sh\n(.*?)^```$", section, flags=re.MULTILINE | re.DOTALL)
    rabbitmqctl = folder / "rabbitmqctl"
    rabbitmqctl.write_text('#!/bin/sh\n[ "$1" = add_user ] && read -r given\necho "$*|$given"\n')
    rabbitmqctl.chmod(0o755)
    done = subprocess.run(
        ["bash", "-c", f"set -euo pipefail\n{script}"],
        env={"PATH": f"{folder}:/usr/bin:/bin"},
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
    )
    return [(words.split(), given) for words, _, given in (line.partition("|") for line in done.stdout.splitlines())]


async def test_a_server_of_ones_own_gets_its_users_by_the_commands_of_the_page(
    started: Started, tmp_path: Path
) -> None:
    for user in WRITES:
        started.broker.control("delete_user", user)
    for words, given in calls(tmp_path):
        placed = [str(CHECKOUT / word) if "/" in word else word for word in words]
        started.broker.control(*placed, given=f"{given}\n")
    for user, powers_of_it in WRITES.items():
        password = (tmp_path / f"broker-{user.removeprefix('hookledger-')}").read_text().strip()
        writes, _, _ = await powers(started.url(user, password), NAMES)
        assert writes == powers_of_it
