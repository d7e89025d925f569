"""Rotating master keys: everything is sealed anew while others go on, and each key is known to be in use or not."""

import asyncio
import base64
from collections.abc import AsyncIterator
from uuid import UUID

import asyncpg
import pytest
from typer.testing import CliRunner, Result

from libs.common.postgres import rewrapping
from libs.common.postgres.fingerprints import fingerprint_key
from libs.common.postgres.pool import Pool, open_pool
from libs.common.postgres.registry import OPERATOR, changing
from libs.common.runtime.clock import new_id, random_bytes
from libs.common.runtime.sealing import MasterKeys, SealError
from services.admin.commands import commands

OLD, NEW, LOST = (bytes([number]) * 32 for number in (1, 2, 3))
ORG = UUID(int=7)
BOTH = MasterKeys([NEW, OLD])


@pytest.fixture
async def pool(database: str) -> AsyncIterator[Pool]:
    async with asyncpg.create_pool(database, min_size=1, max_size=1) as owner:
        await owner.execute("TRUNCATE hookledger.secret, hookledger.answer")
    pool = await open_pool(database, "registry", size=3)
    yield pool
    await pool.close()


async def seal_secrets(pool: Pool, count: int, key: bytes = OLD) -> list[UUID]:
    keys, made = MasterKeys([key]), [new_id() for _ in range(count)]
    sealed = [keys.seal(identity.bytes, owner=identity, org=ORG) for identity in made]
    await pool.execute(
        """
        INSERT INTO hookledger.secret (id, owner, org, sealed, created_at)
        SELECT id, id, $3, sealed, now() FROM unnest($1::uuid[], $2::bytea[]) AS s (id, sealed)
        """,
        made,
        sealed,
        ORG,
    )
    return made


async def seal_answers(pool: Pool, count: int) -> dict[bytes, bytes]:
    digests = {random_bytes(32): random_bytes(8) for _ in range(count)}
    for digest, body in digests.items():
        sealed = MasterKeys([OLD]).seal(body, owner=UUID(bytes=digest[:16]), org=ORG)
        await pool.execute(
            """
            INSERT INTO hookledger.answer (digest, org, request_hash, status, sealed, created_at)
            VALUES ($1, $2, '', 200, $3, now())
            """,
            digest,
            ORG,
            sealed,
        )
    return digests


async def run(database: str, *words: str, keys: tuple[bytes, ...]) -> Result:
    """The operator's command."""
    text = ",".join(base64.b64encode(key).decode() for key in keys)
    environment = {"HOOKLEDGER_DATABASE_URL": database, "HOOKLEDGER_MASTER_KEY": text}
    return await asyncio.to_thread(CliRunner().invoke, commands, ["secrets", *words], env=environment)


def name(key: bytes) -> str:
    return MasterKeys([key]).ids[0].hex()


async def test_everything_opens_with_the_new_key_alone_afterwards(pool: Pool) -> None:
    secrets, answers = await seal_secrets(pool, 1201), await seal_answers(pool, 3)
    steps: list[int] = []
    done = await rewrapping.rewrap(pool, BOTH, steps.append)
    assert (done.rows, done.unopened) == ({"secrets": 1201, "answers": 3}, 0)
    assert steps == [500, 500, 201, 3]
    alone = MasterKeys([NEW])
    rows = await pool.fetch("SELECT id, sealed FROM hookledger.secret")
    assert {row["id"] for row in rows} == set(secrets)
    assert all(alone.open(row["sealed"], owner=row["id"], org=ORG) == row["id"].bytes for row in rows)
    for row in await pool.fetch("SELECT digest, sealed FROM hookledger.answer"):
        owner = UUID(bytes=row["digest"][:16])
        assert alone.open(row["sealed"], owner=owner, org=ORG) == answers[row["digest"]]


async def test_what_was_done_before_a_stop_is_passed_over(pool: Pool) -> None:
    await seal_secrets(pool, 1100)

    def stop(_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        await rewrapping.rewrap(pool, BOTH, stop)
    assert (await rewrapping.usage(pool))["secrets"] == {BOTH.ids[0]: 500, BOTH.ids[1]: 600}
    assert (await rewrapping.rewrap(pool, BOTH, lambda _: None)).rows["secrets"] == 600
    assert (await rewrapping.rewrap(pool, BOTH, lambda _: None)).rows["secrets"] == 0


async def test_changes_made_meanwhile_are_kept(pool: Pool) -> None:
    """Owners rotate and erase their secrets, each a change of the registry, while these are sealed anew."""
    secrets = await seal_secrets(pool, 1500)
    fresh: dict[UUID, bytes] = {}

    async def change() -> None:
        for identity in reversed(secrets[::50]):
            sealed = BOTH.seal(b"fresh", owner=identity, org=ORG)
            async with pool.acquire() as connection, changing(connection, OPERATOR):
                await connection.execute("UPDATE hookledger.secret SET sealed = $2 WHERE id = $1", identity, sealed)
            fresh[identity] = sealed
        await pool.execute("DELETE FROM hookledger.secret WHERE id = ANY($1)", secrets[1::50])

    await asyncio.gather(change(), rewrapping.rewrap(pool, BOTH, lambda _: None))
    rows = await pool.fetch("SELECT id, sealed FROM hookledger.secret")
    assert len(rows) == 1470
    for row in rows:
        expected = b"fresh" if row["id"] in fresh else row["id"].bytes
        assert MasterKeys([NEW]).open(row["sealed"], owner=row["id"], org=ORG) == expected


async def test_the_operator_sees_when_an_old_key_can_be_dropped(pool: Pool, database: str) -> None:
    await seal_secrets(pool, 2)
    before = await run(database, "status", keys=(NEW, OLD))
    assert before.exit_code == 0, before.output
    assert [line.split() for line in before.output.splitlines()] == [
        ["MASTER", "KEY", "PLACE", "SECRETS", "ANSWERS"],
        [name(NEW), "first", "0", "0"],
        [name(OLD), "2", "2", "0"],
    ]
    done = await run(database, "rewrap", keys=(NEW, OLD))
    assert done.exit_code == 0, done.output
    assert f"rewrap: 2 secrets, 0 answers sealed anew with {name(NEW)}" in done.output
    after = await run(database, "status", keys=(NEW, OLD))
    assert f"no longer in use, can be dropped: {name(OLD)}" in after.output
    alone = await run(database, "status", keys=(NEW,))
    assert (alone.exit_code, name(OLD) in alone.output) == (0, False)


async def test_a_key_that_is_in_use_and_not_set_is_said(pool: Pool, database: str) -> None:
    await seal_secrets(pool, 2)
    await seal_secrets(pool, 1, LOST)
    status = await run(database, "status", keys=(NEW, OLD))
    assert (status.exit_code, f"in use, and not in HOOKLEDGER_MASTER_KEY: {name(LOST)}" in status.output) == (1, True)
    done = await run(database, "rewrap", keys=(NEW, OLD))
    assert (done.exit_code, "2 secrets" in done.output, "1 do not open" in done.output) == (1, True, True)


async def test_fingerprints_outlast_the_master_key_that_they_began_with(pool: Pool) -> None:
    old = MasterKeys([OLD])
    first = old.with_fingerprint_key(await fingerprint_key(pool, old))
    assert first.fingerprint(b"a secret") == old.fingerprint(b"a secret")  # as before the key was kept
    await rewrapping.rewrap(pool, BOTH, lambda _: None)
    new = MasterKeys([NEW])
    assert new.with_fingerprint_key(await fingerprint_key(pool, new)).fingerprint(b"a secret") == first.fingerprint(
        b"a secret"
    )
    with pytest.raises(SealError):
        await fingerprint_key(pool, MasterKeys([LOST]))
