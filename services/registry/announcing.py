"""Telling ingress and dispatcher that the registry has changed: best effort, they also find out by themselves."""

import asyncio
from typing import Final

import msgspec

from libs.common.rabbitmq.broker import Broker
from libs.common.rabbitmq.connection import BrokerUnavailableError
from libs.common.runtime.logs import logger

_LOG: Final = logger("announcing")


class Announcer:
    """Publishes the newest version; those that came in the meantime are one announcement."""

    def __init__(self) -> None:
        self._version = 0
        self._changed = asyncio.Event()
        self._stopping = False

    def announce(self, version: int) -> None:
        """Have it announced that the registry is at `version`, without waiting."""
        self._version = max(self._version, version)
        self._changed.set()

    def stop(self) -> None:
        """End `run` after what is still to be announced."""
        self._stopping = True
        self._changed.set()

    async def run(self, broker: Broker) -> None:
        """Announce until `stop`."""
        announced = 0
        while True:
            await self._changed.wait()
            self._changed.clear()
            version = self._version
            if version > announced:
                try:
                    await broker.publish(
                        broker.names.registry,
                        msgspec.json.encode({"version": version}),
                        content_type="application/json",
                    )
                except BrokerUnavailableError as error:
                    _LOG.warning("registry.unannounced", version=version, reason=str(error))
                announced = version
            if self._stopping:
                return
