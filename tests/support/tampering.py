"""What is taken out of the streams between the platform and its servers: answers to commits, and confirms."""

import asyncio

from tests.support.network import Tamper
from tests.support.patience import PATIENCE_SECONDS


class LostCommits:
    """Before Postgres: loses the answer to a commit, and the connection with it; the transaction is committed.

    One of these counts the commits of all connections of a link; `watch` makes what looks at one connection.
    """

    _COMMIT = b"COMMIT;\x00"  # as asyncpg ends a transaction: a simple query

    def __init__(self) -> None:
        self.lost = 0
        self._every = 0
        self._commits = 0
        self._changed = asyncio.Event()

    def arm(self, *, every: int) -> None:
        """From now on lose the answer to every `every`-th commit; 0 for none."""
        self._every = every
        self._commits = 0

    async def loses(self, count: int) -> None:
        """Wait until so many answers were lost in all."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while self.lost < count:
                self._changed.clear()
                await self._changed.wait()

    def watch(self) -> Tamper:
        return _CommitWatch(self)

    def loses_this(self, data: bytes) -> bool:
        """Whether these bytes of a client hold a commit whose answer is to be lost."""
        if not self._every or self._COMMIT not in data:
            return False
        self._commits += 1
        if self._commits % self._every:
            return False
        self.lost += 1
        self._changed.set()
        return True


class _CommitWatch:
    def __init__(self, commits: LostCommits) -> None:
        self._commits = commits
        self._losing = False

    def up(self, data: bytes) -> bytes:
        self._losing = self._losing or self._commits.loses_this(data)
        return data

    def down(self, data: bytes) -> bytes | None:
        return None if self._losing else data  # what comes now is the answer to the commit


class LostConfirms:
    """Before RabbitMQ: swallows the confirms of what was published; the broker has it, and nobody is told."""

    _METHOD = 1  # a frame is: type (1 byte), channel (2), size (4), payload, end (1)
    _HEAD = 7
    _CONFIRMS = (b"\x00\x3c\x00\x50", b"\x00\x3c\x00\x78")  # basic.ack, basic.nack

    def __init__(self) -> None:
        self.armed = False
        self.swallowed = asyncio.Event()

    def arm(self) -> None:
        """Swallow from now on."""
        self.swallowed.clear()
        self.armed = True

    def disarm(self) -> None:
        """Let them through again."""
        self.armed = False

    def watch(self) -> Tamper:
        return _FrameWatch(self)

    def keeps(self, frame: bytes) -> bool:
        """Whether a frame of the server's goes on to the client."""
        is_confirm = frame[0] == self._METHOD and frame[self._HEAD : self._HEAD + 4] in self._CONFIRMS
        if self.armed and is_confirm:
            self.swallowed.set()
            return False
        return True

    def frames(self, data: bytes) -> tuple[list[bytes], bytes]:
        """The whole frames in these bytes, and what is left of the last one."""
        found = []
        while len(data) >= self._HEAD:
            size = self._HEAD + int.from_bytes(data[3:7], "big") + 1
            if len(data) < size:
                break
            found.append(data[:size])
            data = data[size:]
        return found, data


class _FrameWatch:
    def __init__(self, confirms: LostConfirms) -> None:
        self._confirms = confirms
        self._rest = b""

    def up(self, data: bytes) -> bytes:
        return data

    def down(self, data: bytes) -> bytes | None:
        frames, self._rest = self._confirms.frames(self._rest + data)
        return b"".join(frame for frame in frames if self._confirms.keeps(frame))
