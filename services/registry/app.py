"""The registry as a running service: its dependencies, its server, its tasks, and their end."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import timedelta
from functools import partial
from typing import Final

import asyncpg
from aiohttp import web

from libs.common.domain.addresses import AddressPolicy
from libs.common.postgres import pool as postgres
from libs.common.postgres.fingerprints import fingerprint_key
from libs.common.postgres.key_use import KeyUse
from libs.common.postgres.pool import CONNECTION_ERRORS, RETRYABLE_ERRORS, DatabaseUnavailableError, Pool, open_pool
from libs.common.rabbitmq.broker import Broker
from libs.common.rabbitmq.connection import BrokerRefusedError, BrokerUnavailableError
from libs.common.rabbitmq.topology import Names
from libs.common.runtime.http import add_health, middlewares
from libs.common.runtime.lasting import lasting
from libs.common.runtime.listening import listening
from libs.common.runtime.logs import logger
from libs.common.runtime.sealing import MasterKeys, SealError
from libs.common.runtime.service import StartError
from libs.common.runtime.settings import parse_master_keys, parse_networks
from services.registry.announcing import Announcer
from services.registry.answers import forget_old
from services.registry.app_tokens import forget_expired
from services.registry.authentication import Authentication
from services.registry.calls import MAX_BODY_BYTES, REGISTRY, Registry
from services.registry.documentation import add_documentation, add_templates
from services.registry.portal.routes import add_portal
from services.registry.retention import Retention
from services.registry.routes import ROUTES, add_routes
from services.registry.settings import RegistrySettings
from services.registry.verdicts import Verdicts

_LOG: Final = logger("registry")
POOL_SIZE: Final = 16
JUDGE_SECONDS: Final = 1.0
CLOCK_SECONDS: Final = 10.0
FORGET_SECONDS: Final = 600.0
ERASE_SECONDS: Final = 3600.0
CLOSE_SECONDS: Final = 5.0


async def serve(settings: RegistrySettings, stopping: asyncio.Event) -> None:
    """Serve until told to stop.

    Raises:
        StartError: a dependency cannot be reached, or the port is taken.
    """
    master_keys = parse_master_keys(settings.master_key)
    addresses = AddressPolicy(development=settings.dev, allowed_networks=parse_networks(settings.allow_networks))
    if settings.dev:
        _LOG.warning("development", means="http, private addresses, plain host names and any port are allowed")
    try:
        pool = await open_pool(settings.database_url, "registry", size=POOL_SIZE, custom_plans=True)
    except DatabaseUnavailableError as error:
        raise StartError(str(error)) from error
    try:
        key_use = KeyUse(pool)
        registry = Registry(
            pool=pool,
            master_keys=await _with_fingerprints(pool, master_keys),
            addresses=addresses,
            authentication=Authentication(pool, key_use),
            announcer=Announcer(),
            public_url=settings.public_url,
            idempotency=timedelta(hours=settings.idempotency_hours),
        )
        await _serve(settings, stopping, registry, key_use)
    finally:
        try:
            await asyncio.wait_for(pool.close(), CLOSE_SECONDS)
        except (*CONNECTION_ERRORS, asyncpg.PostgresError):
            pool.terminate()


async def _with_fingerprints(pool: Pool, master_keys: MasterKeys) -> MasterKeys:
    """The master keys, with the installation's key for fingerprints.

    Where that does not open the registry still starts: who has lost a master key must be able to rotate the secrets.
    """
    try:
        return master_keys.with_fingerprint_key(await fingerprint_key(pool, master_keys))
    except SealError as error:
        _LOG.error("master_key.missing", reason=str(error), means="older secrets do not open: see `hookledger secrets`")
        return master_keys


async def _serve(settings: RegistrySettings, stopping: asyncio.Event, registry: Registry, key_use: KeyUse) -> None:
    names = Names(settings.amqp_prefix)
    verdicts = Verdicts(registry.pool, registry.announcer, settings.limits)
    broker = Broker(settings.amqp_url, names, "hookledger-registry", service="registry")
    try:
        await broker.check()
    except (BrokerUnavailableError, BrokerRefusedError) as error:
        raise StartError(str(error)) from error
    async with AsyncExitStack() as door:
        http = listening(build(registry, broker), settings.host, settings.port, grace=settings.stop_grace_ms / 1000)
        await door.enter_async_context(http)
        async with asyncio.TaskGroup() as group:
            group.create_task(broker.run())
            announcing = group.create_task(lasting("announcer", partial(registry.announcer.run, broker), stopping))
            noting = group.create_task(lasting("key_use", key_use.run, stopping))
            repeating = [
                group.create_task(_repeat("verdicts", verdicts.sweep, JUDGE_SECONDS)),
                group.create_task(_repeat("clock", lambda: postgres.follow_clock(registry.pool), CLOCK_SECONDS)),
                group.create_task(
                    _repeat("forget", lambda: forget_old(registry.pool, registry.idempotency), FORGET_SECONDS)
                ),
                group.create_task(_repeat("tokens", lambda: forget_expired(registry.pool), FORGET_SECONDS)),
                group.create_task(_repeat("payloads", Retention(registry.pool).sweep, ERASE_SECONDS)),
            ]
            await stopping.wait()
            for task in repeating:
                task.cancel()
            registry.waiting.stop()
            # The requests in hand end here; what they changed is still announced.
            await door.aclose()
            registry.announcer.stop()
            key_use.stop()
            await asyncio.gather(announcing, noting)
            broker.close()


def build(registry: Registry, broker: Broker) -> web.Application:
    """The HTTP side."""
    unavailable_on = (*CONNECTION_ERRORS, *RETRYABLE_ERRORS)
    app = web.Application(middlewares=middlewares(unavailable_on), client_max_size=MAX_BODY_BYTES)
    app[REGISTRY] = registry
    add_routes(app)
    add_templates(app)
    add_documentation(app, [route.operation for route in ROUTES])
    add_portal(app)
    add_health(app, {"postgres": lambda: postgres.answers(registry.pool), "rabbitmq": lambda: _is_ready(broker)})
    return app


async def _is_ready(broker: Broker) -> bool:
    return broker.ready


async def _repeat(name: str, work: Callable[[], Awaitable[None]], seconds: float) -> None:
    """Do `work` now and every so often; what goes wrong is tried again the next time."""
    while True:
        try:
            await work()
        except (*CONNECTION_ERRORS, *RETRYABLE_ERRORS) as error:
            _LOG.warning("registry.postponed", work=name, reason=str(error) or type(error).__name__)
        except Exception:  # noqa: BLE001  a boundary: requests are answered, and the other work is done
            _LOG.exception("part.failed", of=name)
        await asyncio.sleep(seconds)
