"""What the images hold, run as it is deployed: from the wheel, each service under its own roles, and what it logs."""

import asyncio
import base64
import re
import secrets
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import orjson
import pytest
from yarl import URL

from deploy.stack.isolation import Isolation, create_database, drop_database
from deploy.stack.places import CHECKOUT
from deploy.stack.rabbitmq import LocalRabbitMQ
from deploy.stack.servers import Servers
from libs.common.rabbitmq.topology import Names
from tests.conftest import Amqp
from tests.support.broker import cloud_event, give_users, producing
from tests.support.client import Client, connected
from tests.support.installed import Environment, Running, install, running
from tests.support.patience import eventually
from tests.support.receiver import Receiver
from tests.support.roles import OWNER, Prepared, prepare

SERVICES = ("registry", "ingress", "dispatcher")


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployed:
    """Three services that run from the wheel, each with its role in the database and its user of the broker."""

    environment: Environment
    prepared: Prepared
    services: dict[str, Running]
    settings: dict[str, dict[str, str]]
    producer: Isolation
    operator_url: str
    secrets: dict[str, str]
    key: str

    def logs(self) -> str:
        """What the three have written so far."""
        return "".join(service.log.read_text() for service in self.services.values())


@pytest.fixture(scope="module")
async def deployed(servers: Servers, amqp: Amqp, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Deployed]:
    """As an operator does it: roles.sql, users of the broker, `hookledger migrate` as the owner, the services."""
    broker = servers.broker
    if not isinstance(broker, LocalRabbitMQ):
        pytest.skip("this needs a RabbitMQ of its own: users are the whole server's")
    folder = tmp_path_factory.mktemp("deployed")
    environment = await asyncio.to_thread(install, folder)
    passwords = await asyncio.to_thread(give_users, broker, Names(amqp.prefix), folder)

    def broker_url(user: str) -> str:
        return str(URL(amqp.url).with_user(user).with_password(passwords[user]))

    name = "hookledger_test_deployed"
    prepared = await prepare(create_database(servers.database_url, name), migrated=False)
    environment.run("migrate", settings={"DATABASE_URL": prepared.urls[OWNER]})
    master_key = base64.b64encode(secrets.token_bytes(32)).decode()
    settings = {
        service: {
            "DATABASE_URL": prepared.urls[f"hookledger_{service}"],
            "AMQP_URL": broker_url(f"hookledger-{service}"),
            "AMQP_PREFIX": amqp.prefix,
            "MASTER_KEY": master_key,
            "LOG_LEVEL": "debug",
            "DEV": "1",
        }
        for service in SERVICES
    }
    registry = {"DATABASE_URL": settings["registry"]["DATABASE_URL"]}
    words = ("organisation", "create", "tests", "--secret-reveal", "always", "--amqp-user", "hookledger-producer")
    organisation = environment.run(*words, settings=registry)
    key = environment.run("key", "create", organisation, settings=registry)
    with ExitStack() as stack:
        services = {"registry": stack.enter_context(running(environment, "registry", settings["registry"]))}
        settings["ingress"]["REGISTRY_URL"] = services["registry"].url
        for service in ("ingress", "dispatcher"):
            services[service] = stack.enter_context(running(environment, service, settings[service]))
        yield Deployed(
            environment=environment,
            prepared=prepared,
            services=services,
            settings=settings,
            producer=Isolation(
                database_url=prepared.admin, amqp_url=broker_url("hookledger-producer"), amqp_prefix=amqp.prefix
            ),
            operator_url=broker_url("hookledger-operator"),
            secrets={"the master key": master_key, "an API key": key}
            | {f"the broker's password of {user}": password for user, password in passwords.items()}
            | {f"the database's password of {role}": URL(url).password or "" for role, url in prepared.urls.items()},
            key=key,
        )
    drop_database(servers.database_url, name)


@pytest.fixture
async def door(deployed: Deployed) -> AsyncIterator[Client]:
    async with connected(deployed.services["ingress"].url, deployed.key) as client:
        yield client


async def test_a_message_by_each_way_is_delivered_and_the_ledger_is_verified(
    deployed: Deployed, door: Client, receiver: Receiver
) -> None:
    app = await door.create_application()
    await door.create_endpoint(app, receiver.script("/", 500))
    await door.send(app, "order.completed", {"order": 7})
    async with producing(deployed.producer) as producer:
        await producer.publish_event(cloud_event(app, "order.completed", {"order": 8}, id="8"))
    deliveries = await door.settled(app, 2)
    assert [delivery["status"] for delivery in deliveries] == ["succeeded", "succeeded"]
    assert len(receiver.got("/")) == 3
    told = deployed.environment.run("verify", settings={"DATABASE_URL": deployed.settings["registry"]["DATABASE_URL"]})
    assert told.splitlines()[-1].startswith("ledger: verified")


async def test_each_service_is_logged_in_under_its_own_role_and_nothing_was_refused(deployed: Deployed) -> None:
    connection = await asyncpg.connect(deployed.prepared.admin)
    rows = await connection.fetch("""
        SELECT DISTINCT usename, application_name FROM pg_stat_activity
        WHERE datname = current_database() AND application_name LIKE 'hookledger-%'
    """)
    await connection.close()
    assert {tuple(row) for row in rows} == {(f"hookledger_{name}", f"hookledger-{name}") for name in SERVICES}
    assert "permission denied" not in deployed.logs()
    assert "ACCESS_REFUSED" not in deployed.logs()


async def test_a_partition_that_is_due_is_made_by_a_services_own_role(deployed: Deployed) -> None:
    for service in ("ingress", "dispatcher"):
        connection = await asyncpg.connect(deployed.settings[service]["DATABASE_URL"])
        made = await connection.fetchval("SELECT hookledger.create_partitions(6)")
        assert made == (12 if service == "ingress" else 0)
        await connection.close()


async def test_no_secret_and_no_content_is_in_any_log_at_any_level(
    deployed: Deployed, door: Client, receiver: Receiver
) -> None:
    """Canaries: what came in by every way, accepted and refused, is looked for in all that was written."""
    canary = {name: f"canary{secrets.token_hex(8)}" for name in ("body", "header", "query", "bad body", "wrong key")}
    source_secret = f"whsec_{base64.b64encode(secrets.token_bytes(24)).decode()}"
    app = await door.create_application()
    url = receiver.script(f"/?token={canary['query']}".partition("?")[0], 500)
    endpoint = await door.create_endpoint(app, f"{url}?token={canary['query']}", headers={"X-Custom": canary["header"]})
    dead = await door.create_endpoint(app, f"http://127.0.0.1:1/?token={canary['query']}")
    source = await door.create_source(app, "standard-webhooks", source_secret)
    await door.send(app, "order.completed", {"text": canary["body"]})
    refused = [
        await door.request("POST", f"/api/v1/app/{app}/msg", data=f'{{"x": "{canary["bad body"]}"'.encode()),
        await door.request("POST", f"/in/{source.id}", data=canary["bad body"].encode()),
        await door.request(
            "POST", f"/api/v1/app/{app}/msg?token={canary['query']}", json={},
            headers={"Authorization": f"Bearer {canary['wrong key']}"},
        ),
        await door.request("GET", f"/api/v1/app?token={canary['query']}", headers={"X-Request-Id": "the-tests-own"}),
    ]  # fmt: skip
    async with producing(deployed.producer) as producer:
        await producer.publish(canary["bad body"].encode())
    await door.settled(app, 2)
    await eventually(_parked(deployed), bool)

    assert [answer.status for answer in refused[:3]] == [422, 401, 401]
    hidden = deployed.secrets | canary | {"a source's secret": source_secret}
    hidden |= {"an endpoint's secret": endpoint.secret, "another's": dead.secret}
    text = deployed.logs()
    assert [name for name, value in hidden.items() if value.removeprefix("whsec_") in text] == []


REGISTRYS_POD = """\
#!/bin/sh
# `kubectl`, as far as docs/kubernetes.md asks it: reads a Secret, and runs a command in a pod of the registry's.
case "$*" in
"-n hookledger get secret hookledger-operator "*amqp-url*) cat operator-url ;;
"-n hookledger exec -i deploy/registry -- "*)
    while [ "$1" != -- ]; do shift; done
    shift
    exec env -i PATH={path} HOOKLEDGER_AMQP_URL_FILE=registry-url HOOKLEDGER_AMQP_PREFIX={prefix} "$@" ;;
*) echo "kubectl $*?" >&2; exit 64 ;;
esac
"""


def scripts(page: str, section: str) -> list[str]:
    """The shell commands of a section of `docs`."""
    text = (CHECKOUT / "docs" / page).read_text().partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    return re.findall(r"^```sh\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)


async def test_dead_letters_are_read_sent_again_and_thrown_away_from_a_registrys_pod_as_the_pages_say(
    deployed: Deployed, door: Client, tmp_path: Path
) -> None:
    """By the operator's user, which no pod has; the registry's own may look, and no more."""
    kubectl = tmp_path / "kubectl"
    programs = f"{deployed.environment.folder / 'bin'}:/usr/bin:/bin"
    kubectl.write_text(REGISTRYS_POD.format(path=programs, prefix=deployed.producer.amqp_prefix))
    kubectl.chmod(0o755)
    (tmp_path / "operator-url").write_text(deployed.operator_url)
    (tmp_path / "registry-url").write_text(deployed.settings["registry"]["AMQP_URL"] + "\n")
    [in_kubernetes] = scripts("kubernetes.md", "Dead letters")
    as_the_page_has_it, _, first_look = in_kubernetes.rstrip().rpartition("\n")
    looking, again, away = scripts("operations.md", "Dead letters")

    async def do(script: str, letter: str = "") -> str:
        shell = f'set -euo pipefail\n{as_the_page_has_it}\nhookledger() {{ shift; dead_letter "$@"; }}\n{script}'
        done = await asyncio.to_thread(
            subprocess.run, ["bash", "-c", shell], cwd=tmp_path, capture_output=True, text=True, check=False,
            env={"PATH": f"{tmp_path}:/usr/bin:/bin", "id": letter},
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return str(done.stdout)

    async with producing(deployed.producer) as producer:
        await producer.publish_event(cloud_event("not-yet", "order.completed", {"n": 1}, id="dead-1"))
        listed = await eventually(lambda: do(first_look), lambda text: "hookledgerapp" in text)
    letter = next(line.split()[0] for line in listed.splitlines() if "hookledgerapp" in line)
    shown = await do(looking, letter)
    assert "user: hookledger-producer" in shown
    assert '"hookledgerapp":"not-yet"' in shown

    as_the_registry = f"kubectl -n hookledger exec -i deploy/registry -- hookledger dead-letter redrive {letter}"
    refused = await asyncio.to_thread(
        subprocess.run, ["sh", "-c", as_the_registry], cwd=tmp_path, env={"PATH": f"{tmp_path}:/usr/bin:/bin"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "ACCESS_REFUSED" in refused.stderr
    assert refused.stderr.count("\n") == 1

    app = await door.create_application(uid="not-yet")
    assert f"{letter} sent again" in await do(again, letter)
    page = await eventually(lambda: door.get(f"/app/{app}/msg"), lambda page: len(page["data"]) == 1)
    assert page["data"][0]["payload"] == {"n": 1}

    async with producing(deployed.producer) as producer:
        await producer.publish_event(cloud_event("never", "order.completed", {"n": 2}, id="dead-2"))
        listed = await eventually(lambda: do(first_look), lambda text: "hookledgerapp" in text)
    letter = next(line.split()[0] for line in listed.splitlines() if "hookledgerapp" in line)
    assert await do(away, letter) == f"{letter} dropped\n"
    assert letter not in await do(first_look)


def _parked(deployed: Deployed) -> Any:
    async def found() -> bool:
        return "poison.parked" in deployed.services["ingress"].log.read_text()

    return found


def lines(deployed: Deployed) -> Iterator[dict[str, Any]]:
    for text in deployed.logs().splitlines():
        line: dict[str, Any] = orjson.loads(text)
        yield line


async def test_every_line_is_one_json_object_that_says_who_and_when_and_names_what_it_is_about(
    deployed: Deployed,
) -> None:
    for line in lines(deployed):
        assert {"event", "level", "part", "service", "timestamp"} <= line.keys(), line
    attempts = [line for line in lines(deployed) if line["event"].startswith("attempt.")]
    assert attempts
    assert all({"delivery", "message"} <= line.keys() for line in attempts)
    changes = [line for line in lines(deployed) if line["event"] == "registry.changed"]
    assert changes
    assert all("request_id" in line for line in changes)
    assert not [line for line in lines(deployed) if line["event"] == "library"]
