"""What libraries say comes into our own log, as JSON."""

import subprocess
import sys

import orjson
import pytest

CALLBACK_FAILS = """
import {loop}
from libs.common.runtime import logs

async def main():
    loop = asyncio.get_running_loop()
    loop.call_soon(lambda: 1 / 0)
    await asyncio.sleep(0)
    await asyncio.sleep(0)

import asyncio
logs.configure("ingress", "info")
{loop}.run(main())
"""

WARNING = """
import logging
from libs.common.runtime import logs
logs.configure("ingress", "info")
logging.getLogger("elsewhere").warning("%d left", 3)
logging.getLogger("elsewhere").info("not worth a line")
"""


IDS = """
import uuid
from asyncpg.pgproto.pgproto import UUID
from libs.common.runtime import logs
logs.configure("ingress", "info")
logs.logger("part").info("told", ours=uuid.UUID(int=7), of_postgres=UUID(bytes(15) + bytes([7])), other=range(2))
"""


def logged(program: str) -> list[dict[str, object]]:
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return [orjson.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_an_error_in_a_callback_says_which_and_where(loop: str) -> None:
    [line] = logged(CALLBACK_FAILS.format(loop=loop))
    assert (line["event"], line["level"], line["part"]) == ("library", "error", "asyncio")
    assert "ZeroDivisionError: division by zero" in str(line["exception"])


def test_a_warning_of_a_library_is_one_line() -> None:
    [line] = logged(WARNING)
    assert line.pop("timestamp")
    assert line == {"event": "library", "level": "warning", "part": "elsewhere", "said": "3 left", "service": "ingress"}


def test_an_id_is_spelled_alike_whoever_made_it() -> None:
    [line] = logged(IDS)
    assert line["ours"] == line["of_postgres"] == "00000000-0000-0000-0000-000000000007"
    assert line["other"] == "range(0, 2)"
