"""`make bench-lists`: how long a page of each list takes with ten thousand deliveries, and with a million.

Two databases on the same server, each with a registry of its own and one application whose one endpoint got everything:
nothing else narrows a list down. Every list is asked of the two in turn, so that what else the machine does meanwhile
falls on both.
"""

import argparse
import asyncio
import contextlib
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

import aiohttp
import asyncpg
from rich.console import Console
from rich.table import Table

from bench import volume
from deploy.stack.errors import StackError
from deploy.stack.installation import Installation
from deploy.stack.interrupts import ending_undisturbed, interruptible
from deploy.stack.isolation import Isolation, isolated
from deploy.stack.servers import Servers, session_servers
from libs.common.domain import ids
from libs.common.domain.ids import Prefix

AT_ONCE: Final = 100_000
MOST_TIMES: Final = 3.0
"""By so much, at most, a page's p99 may grow from the small history to the large one."""

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A list, and what it is asked for."""

    path: str
    asked: Mapping[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """For the table."""
        path = self.path.replace("/app/{app}", "")
        return path + ("?" if self.asked else "") + "&".join(f"{name}={value}" for name, value in self.asked.items())


_MESSAGES: Final = "/app/{app}/msg"
_DELIVERIES: Final = "/app/{app}/delivery"
_ATTEMPTS: Final = "/app/{app}/attempt/endpoint/{endpoint}"
_MESSAGES_SENT: Final = "/app/{app}/endpoint/{endpoint}/msg"
CASES: Final = (
    Case(path=_MESSAGES),
    Case(path=_MESSAGES, asked={"iterator": "{msg}"}),
    Case(path=_MESSAGES, asked={"event_types": "order.refunded"}),
    Case(path=_MESSAGES, asked={"event_types": "order.rare"}),
    Case(path=_MESSAGES, asked={"channel": "eu"}),
    Case(path=_MESSAGES, asked={"channel": "rare"}),
    Case(path=_MESSAGES, asked={"before": "{middle}"}),
    Case(path=_MESSAGES, asked={"after": "{middle}"}),
    Case(path=_DELIVERIES),
    Case(path=_DELIVERIES, asked={"order": "ascending"}),
    Case(path=_DELIVERIES, asked={"status": "exhausted"}),
    Case(path=_DELIVERIES, asked={"status": "waiting"}),
    Case(path=_DELIVERIES, asked={"endpointId": "{endpoint}"}),
    Case(path=_DELIVERIES, asked={"messageId": "{msg}"}),
    Case(path=_ATTEMPTS),
    Case(path=_ATTEMPTS, asked={"status": "2"}),
    Case(path=_ATTEMPTS, asked={"status": "3"}),
    Case(path=_ATTEMPTS, asked={"status_code_class": "500"}),
    Case(path=_ATTEMPTS, asked={"status_code_class": "400"}),
    Case(path=_ATTEMPTS, asked={"event_types": "order.rare"}),
    Case(path=_ATTEMPTS, asked={"before": "{middle}"}),
    Case(path=_MESSAGES_SENT),
    Case(path=_MESSAGES_SENT, asked={"status": "2"}),
    Case(path=_MESSAGES_SENT, asked={"channel": "rare"}),
    Case(path=_MESSAGES_SENT, asked={"before": "{middle}"}),
    Case(path="/app/{app}/attempt/msg/{msg}"),
    Case(path="/app/{app}/msg/{msg}/endpoint"),
    Case(path="/app/{app}/endpoint"),
    Case(path="/audit"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """One of the two, and who asks its registry."""

    api: aiohttp.ClientSession
    names: dict[str, str]
    """What stands for the names in paths and values."""

    async def ask(self, case: Case) -> float:
        """Milliseconds that a page takes."""
        params = {name: value.format(**self.names) for name, value in case.asked.items()}
        began = time.perf_counter()
        async with self.api.get("/api/v1" + case.path.format(**self.names), params=params) as answer:
            body = await answer.read()
            if answer.status != 200:
                raise StackError(f"{case.name} answered {answer.status}: {body[:200].decode()}")
        return (time.perf_counter() - began) * 1000


def main() -> int:
    """Fill, measure, print; the exit code is 1 where a list grows by more than `MOST_TIMES`."""
    parser = argparse.ArgumentParser(prog="python -m bench.lists", description=__doc__.partition("\n")[0])
    parser.add_argument("--small", type=int, default=10_000, metavar="N", help="deliveries of the small history")
    parser.add_argument("--large", type=int, default=1_000_000, metavar="N", help="deliveries of the large one")
    parser.add_argument("--requests", type=int, default=300, metavar="N", help="of each list, in each history")
    given = parser.parse_args()
    sizes = (given.small, given.large)
    try:
        with session_servers("bench", say=_say) as servers, ending_undisturbed():
            taken = asyncio.run(_measure(sizes, given.requests, servers))
    except StackError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 2
    return _show(sizes, given.requests, taken)


async def _measure(sizes: tuple[int, int], requests: int, servers: Servers) -> dict[str, tuple[list[float], ...]]:
    """Milliseconds of each request, by list and history."""
    async with contextlib.AsyncExitStack() as stack:
        histories = []
        for size in sizes:
            corner = stack.enter_context(isolated(servers, label="lists"))
            installation = Installation(folder=servers.folder / f"lists-{size}", corner=corner)
            await asyncio.to_thread(installation.migrate)
            key = await asyncio.to_thread(installation.create_key)
            registry = installation.service("registry")
            registry.start()
            stack.callback(registry.stop)
            await asyncio.to_thread(registry.wait_ready)
            headers = {"Authorization": f"Bearer {key}"}
            api = await stack.enter_async_context(aiohttp.ClientSession(registry.url, headers=headers))
            histories.append(History(api=api, names=await _fill(api, corner, size)))
        taken: dict[str, tuple[list[float], ...]] = {}
        for case in CASES:
            _say(case.name)
            taken[case.name] = tuple([] for _ in histories)
            for number in range(-10, requests):  # the first ones warm up
                for history, times in zip(histories, taken[case.name], strict=True):
                    ms = await history.ask(case)
                    if number >= 0:
                        times.append(ms)
        return taken


async def _fill(api: aiohttp.ClientSession, corner: Isolation, size: int) -> dict[str, str]:
    """An application with that many deliveries; its names."""
    app = await _post(api, "/app", {"name": "bench"})
    endpoint = await _post(api, f"/app/{app}/endpoint", {"url": "https://receiver.example"})
    now = datetime.now(UTC)
    sql = await asyncpg.connect(corner.database_url)
    try:
        await volume.prepare(sql)
        place = volume.Place(
            org=await sql.fetchval("SELECT org FROM hookledger.registry_object WHERE kind = 'application'"),
            app=ids.decode(Prefix.APPLICATION, app),
            endpoint=ids.decode(Prefix.ENDPOINT, endpoint),
            until_ms=int(now.timestamp() * 1000),
        )
        for first in range(1, size + 1, AT_ONCE):
            last = min(first + AT_ONCE - 1, size)
            _say(f"{last} of {size} deliveries")
            await volume.history(sql, place, first, last)
        await sql.execute("VACUUM ANALYZE", timeout=None)
        middle = now - timedelta(milliseconds=volume.EVERY_MS * size / 2)
        message: UUID = await sql.fetchval(
            "SELECT id FROM hookledger.message WHERE accepted_at < $1 ORDER BY id DESC LIMIT 1", middle
        )
    finally:
        await sql.close()
    return {
        "app": app,
        "endpoint": endpoint,
        "msg": ids.encode(Prefix.MESSAGE, message),
        "middle": middle.isoformat(),
    }


async def _post(api: aiohttp.ClientSession, path: str, body: dict[str, str]) -> str:
    async with api.post(f"/api/v1{path}", json=body) as answer:
        if not answer.ok:
            raise StackError(f"POST {path} answered {answer.status}: {await answer.text()}")
        made: str = (await answer.json())["id"]
        return made


def _show(sizes: tuple[int, int], requests: int, taken: dict[str, tuple[list[float], ...]]) -> int:
    table = Table(title=f"a page of each list, in milliseconds; {requests} requests each")
    table.add_column("list", no_wrap=True)
    for heading in (*(f"p50, {size:,}" for size in sizes), *(f"p99, {size:,}" for size in sizes), "p99 ratio"):
        table.add_column(heading, justify="right")
    worst = 0.0
    for name, times in taken.items():
        p50 = [_percentile(each, 0.5) for each in times]
        p99 = [_percentile(each, 0.99) for each in times]
        worst = max(worst, p99[1] / p99[0])
        table.add_row(name, *(f"{ms:.1f}" for ms in (*p50, *p99)), f"{p99[1] / p99[0]:.2f}")
    console = Console(highlight=False, width=120)
    console.print(table)
    console.print(f"p99 grows by {worst:.2f} times at most; {MOST_TIMES:.0f} are allowed")
    return 0 if worst <= MOST_TIMES else 1


def _percentile(times: list[float], share: float) -> float:
    return sorted(times)[min(len(times) - 1, int(len(times) * share))]


def _say(line: str) -> None:
    print(f"bench: {line}", flush=True)


if __name__ == "__main__":
    sys.exit(interruptible("bench", main))
