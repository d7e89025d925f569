"""A batch of the publish API: reading a large one keeps nothing else waiting for long."""

import asyncio

from libs.common.runtime.clock import new_id, now
from services.ingress.batch_in import Batch, read_items
from services.ingress.publication import repetition, repetitions


async def turns_beside(texts: list[str]) -> int:
    """How often everything else has its turn while a batch of these payloads' texts is read."""
    messages = ",".join(f'{{"eventType":"a","payload":{{"t":"{text}"}}}}' for text in texts)
    items = read_items(f'{{"messages":[{messages}]}}'.encode())
    turns = 0

    async def take_turns() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    beside = asyncio.create_task(take_turns())
    batch = Batch()
    await batch.read(items, now)
    beside.cancel()
    assert len(batch.messages) == len(texts)
    return turns


async def test_between_large_messages_everything_else_has_its_turn() -> None:
    assert await turns_beside([r"\u003a" * 20_000] * 40) >= 39
    assert await turns_beside([r"\u003a" * 100] * 1000) >= 8


async def test_a_batch_of_a_few_small_messages_is_read_at_once() -> None:
    assert await turns_beside(["x"] * 100) == 0


def test_the_claims_of_a_batch_differ_by_place_and_its_request_is_hashed_once() -> None:
    body, key, app = b"x" * 1000, new_id(), new_id()
    claims = repetitions(key, "/path", "given", app, body, places=3)
    single = repetition(key, "/path", "given", app, body)
    assert len({single.key, *(claim.key for claim in claims)}) == 4
    assert {claim.request_hash for claim in claims} == {single.request_hash}
    assert len({id(claim.request_hash) for claim in claims}) == 1
