"""Least power on the broker: each service has its own exchanges and queues, a producer one exchange to write to."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, replace

import pytest

from deploy import broker_users
from deploy.stack.rabbitmq import LocalRabbitMQ
from deploy.stack.servers import Servers
from libs.common.rabbitmq.topology import Names, Service
from services.admin.dead_letters import dead_letters_of
from tests.conftest import Amqp
from tests.integration.rabbitmq.line import raw_channel
from tests.integration.rabbitmq.users import (
    CONSUMES,
    EXCHANGES,
    QUEUES,
    SERVICES,
    WRITES,
    logged_in,
    own_consumers,
    powers,
    ready,
)
from tests.support.broker import give_users


@dataclass(frozen=True, slots=True, kw_only=True)
class Users:
    """The broker's users for one prefix of names."""

    amqp: Amqp
    passwords: dict[str, str]

    def as_user(self, name: str) -> Amqp:
        """The corner, as that user sees it."""
        return replace(self.amqp, url=logged_in(self.amqp.url, name, self.passwords[name]))


@pytest.fixture(scope="module")
def users(servers: Servers, amqp: Amqp, tmp_path_factory: pytest.TempPathFactory) -> Users:
    """Those of deploy/rabbitmq/permissions.json, for this module's prefix."""
    broker = servers.broker
    if not isinstance(broker, LocalRabbitMQ):
        pytest.skip("this needs a RabbitMQ of its own: users are the whole server's")
    return Users(amqp=amqp, passwords=give_users(broker, Names(amqp.prefix), tmp_path_factory.mktemp("broker")))


@pytest.fixture
async def declared(users: Users) -> AsyncIterator[Users]:
    """With everything declared."""
    async with ready(users.amqp, None):
        yield users


@pytest.mark.parametrize("service", SERVICES)
async def test_a_service_declares_and_consumes_on_a_bare_broker_with_its_own_user(
    users: Users, service: Service
) -> None:
    names = Names(users.amqp.prefix)
    async with raw_channel(users.amqp) as channel:
        for name in QUEUES:
            await channel.queue_delete(getattr(names, name))
        for name in EXCHANGES:
            await channel.exchange_delete(getattr(names, name))
    async with ready(users.as_user(f"hookledger-{service}"), service, *own_consumers(service, names)) as broker:
        assert broker.ready


@pytest.mark.parametrize("user", WRITES)
async def test_a_user_publishes_and_consumes_what_is_its_own_and_nothing_else(declared: Users, user: str) -> None:
    found = await powers(declared.as_user(user).url, Names(declared.amqp.prefix))
    assert found == (WRITES[user], CONSUMES[user], set())


async def test_the_operators_user_looks_through_the_dead_letters(declared: Users) -> None:
    names = Names(declared.amqp.prefix)
    async with dead_letters_of(declared.as_user("hookledger-operator").url, names) as letters:
        found, count = await letters.oldest(10)
    assert len(found) == count


def test_the_file_is_what_the_code_says_now() -> None:
    assert broker_users.FILE.read_text() == broker_users.text(), "stale: run `make configuration`"
