"""The platform under test: the real three services, as processes that can be killed and started again."""

import asyncio
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import aiohttp

from deploy.stack.installation import Installation
from deploy.stack.isolation import Isolation
from deploy.stack.services import Service
from libs.common.contracts.registry import SecretReveal
from tests.support.organisations import broker_user, found

STOP_SECONDS: Final = 8.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Platform:
    """Three running services on free ports, one organisation and its admin key.

    Attributes:
        installation: their common settings, and the operator's command.
        services: by name: `registry`, `ingress` and `dispatcher`.
        organisation: the id of the first organisation; the broker's user publishes for it.
        key: an API key of scope admin in it.
    """

    installation: Installation
    services: dict[str, Service]
    organisation: str
    key: str

    @property
    def url(self) -> str:
        """The front door."""
        return self.services["ingress"].url

    @property
    def registry_url(self) -> str:
        """The registry, asked directly."""
        return self.services["registry"].url

    @property
    def corner(self) -> Isolation:
        """Its database, its broker and its prefix there."""
        return self.installation.corner

    async def start(self, name: str) -> None:
        """Start a service again; returns when it is ready."""
        await asyncio.to_thread(self._start, name)

    async def stop(self, name: str) -> None:
        """SIGTERM; returns when the service has drained and ended."""
        await asyncio.to_thread(self.services[name].stop)

    async def kill(self, name: str) -> None:
        """SIGKILL; returns when the service is dead."""
        await asyncio.to_thread(self.services[name].kill)

    async def admin(self, *words: str) -> str:
        """What `python -m services.admin` prints.

        Raises:
            StackError: it exits with another code than 0.
        """
        return await asyncio.to_thread(self.installation.admin, *words)

    async def create_tenant(self, **settings: Any) -> str:
        """Another organisation, with these settings; its admin key."""
        return (await asyncio.to_thread(found, self.corner.database_url, "tenant", **settings)).key

    async def ready(self) -> bool:
        """Whether all three services say that their dependencies answer."""
        async with aiohttp.ClientSession() as session:
            for service in self.services.values():
                try:
                    async with session.get(f"{service.url}/readyz") as response:
                        if response.status != 200:
                            return False
                except aiohttp.ClientError:
                    return False
        return True

    def log(self, name: str) -> str:
        """What a service has logged so far."""
        return self.services[name].log.read_text(errors="replace")

    def _start(self, name: str) -> None:
        self.services[name].start()
        self.services[name].wait_ready()


@contextmanager
def running(folder: Path, corner: Isolation, settings: Mapping[str, str] | None = None) -> Iterator[Platform]:
    """A platform whose database is migrated, in development mode.

    Args:
        folder: keeps its master key and logs.
        corner: its database, broker and prefix.
        settings: more settings for every service, without the prefix `HOOKLEDGER_`.
    """
    installation = Installation(folder=folder, corner=corner, settings=settings or {})
    services = installation.services()
    try:
        for service in services.values():
            service.start()
        first = found(
            corner.database_url,
            "tests",
            amqp_user=broker_user(corner.amqp_url),
            secret_reveal=SecretReveal.ALWAYS,
        )
        for service in services.values():
            service.wait_ready()
        yield Platform(installation=installation, services=services, organisation=first.organisation, key=first.key)
    finally:
        slow = [service for service in services.values() if not _stops(service)]
        # Tests that end with a service which does not stop, or of which a part failed, have found a fault of the service.
        for service in services.values():
            failed = [line for line in service.log.read_text(errors="replace").splitlines() if "part.failed" in line]
            assert not failed, f"{service.label}: {failed[0]}"
        assert not slow, "\n".join(f"{service.label} does not stop:\n{_end_of(service.log)}" for service in slow)


def _stops(service: Service) -> bool:
    """Whether a service ends soon after SIGTERM; if not, it is killed."""
    began = time.monotonic()
    service.stop(grace_s=STOP_SECONDS)
    return time.monotonic() - began < STOP_SECONDS


def _end_of(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-20:])
