"""Fixtures: servers for a whole run; a database, a corner of the broker and a platform for each module; the rest anew."""

import gc
import os
import secrets
import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import hypothesis.configuration
import pytest

from deploy.stack.errors import StackError
from deploy.stack.isolation import Isolation, remove_names
from deploy.stack.places import HOME, make_folder
from deploy.stack.servers import Servers, session_servers
from libs.common.runtime.service import GARBAGE_THRESHOLD
from tests.support import databases
from tests.support.client import Client, connected
from tests.support.platform import Platform, running
from tests.support.receiver import Receiver, receiving

_TEMPORARY = HOME / "pytest" / str(os.getpid())

# A deadline by the wall clock fails on a busy machine, not on wrong code.
hypothesis.settings.register_profile("hookledger", deadline=None)
hypothesis.settings.load_profile("hookledger")
hypothesis.configuration.set_hypothesis_home_dir(HOME / "hypothesis")


def pytest_addoption(parser: pytest.Parser) -> None:
    """A way to find tests that race with a commit: `--slow "UPDATE projection_1.delivery_state=0.3"`."""
    parser.addoption(
        "--slow",
        action="append",
        default=[],
        metavar="WRITE=SECONDS",
        help="have each such write to the databases of tests be late (may be given again)",
    )


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Write nothing outside of `.hookledger/`."""
    if config.option.basetemp is None:
        make_folder(_TEMPORARY.parent)
        config.option.basetemp = _TEMPORARY


def pytest_collection_finish() -> None:
    """Keep the garbage collector off what stays for the whole run, as the services do: it took a tenth of the time."""
    gc.freeze()
    gc.set_threshold(GARBAGE_THRESHOLD, 20, 20)


def pytest_unconfigure() -> None:
    """Leave no temporary files."""
    shutil.rmtree(_TEMPORARY, ignore_errors=True)


# Servers


@dataclass(frozen=True, slots=True, kw_only=True)
class Amqp:
    """A corner of the broker: exchanges and queues whose names begin with `prefix`."""

    url: str
    prefix: str


@contextmanager
def corner(servers: Servers) -> Iterator[Amqp]:
    """A corner of the broker that nobody else uses; it is cleared in the end."""
    prefix = f"hookledger_test_{secrets.token_hex(4)}"
    yield Amqp(url=servers.amqp_url, prefix=prefix)
    with suppress(StackError):  # the tests may have left the broker dead
        remove_names(servers.amqp_url, prefix)


@pytest.fixture(scope="session")
def servers() -> Iterator[Servers]:
    """Postgres and RabbitMQ for this run, found or started as `make up` does it; empty at first, gone at the end.

    Where a Docker daemon answers they are testcontainers.
    """
    from tests.support.containers import Testcontainers  # which takes its time, and pure tests need no servers

    try:
        with session_servers("test", engine=Testcontainers()) as found:
            yield found
    except StackError as error:
        pytest.exit(f"stack: {error}", returncode=2)


@pytest.fixture(scope="session")
async def database_template(servers: Servers, pytestconfig: pytest.Config) -> AsyncIterator[str]:
    """The name of a migrated database that nobody is connected to."""
    slow = dict(each.split("=") for each in pytestconfig.getoption("--slow"))
    name = await databases.create_template(servers.database_url, {write: float(s) for write, s in slow.items()})
    yield name
    await databases.drop(servers.database_url, name)


@pytest.fixture(scope="module")
async def database(servers: Servers, database_template: str) -> AsyncIterator[str]:
    """The URL of a migrated database of this module's own."""
    async with databases.cloned(servers.database_url, database_template) as url:
        yield url


@pytest.fixture(scope="module")
def amqp(servers: Servers) -> Iterator[Amqp]:
    """A corner of the broker of this module's own."""
    with corner(servers) as found:
        yield found


# The platform, those who send to it, and those who receive from it


@pytest.fixture(scope="module")
def platform(request: pytest.FixtureRequest, servers: Servers, database: str, amqp: Amqp) -> Iterator[Platform]:
    """The three services, for this module. A test that stops or kills one starts it again."""
    folder = servers.folder / "platforms" / request.path.stem
    corner = Isolation(database_url=database, amqp_url=amqp.url, amqp_prefix=amqp.prefix)
    with running(folder, corner) as started:
        yield started


@pytest.fixture
async def client(platform: Platform) -> AsyncIterator[Client]:
    """A client of the front door, with the admin key of the platform's first organisation."""
    async with connected(platform.url, platform.key) as connection:
        yield connection


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    """A receiver of this test's own."""
    async with receiving() as listening:
        yield listening
