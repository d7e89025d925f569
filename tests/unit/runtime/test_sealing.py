"""Secrets at rest: who can open what."""

import base64
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.common.runtime.sealing import OVERHEAD_BYTES, MasterKeys, SealError

ONE, TWO = bytes(range(32)), bytes(range(32, 64))
KEYS = MasterKeys([ONE])
OWNER, OTHER, ORG = UUID(int=1), UUID(int=2), UUID(int=3)
SECRET = b"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


@given(st.binary(max_size=200))
def test_what_is_sealed_opens_to_the_same_bytes(secret: bytes) -> None:
    sealed = KEYS.seal(secret, owner=OWNER, org=ORG)
    assert KEYS.open(sealed, owner=OWNER, org=ORG) == secret
    assert len(sealed) == len(secret) + OVERHEAD_BYTES


def test_a_sealed_secret_shows_nothing_of_it_and_never_looks_the_same() -> None:
    sealed = [KEYS.seal(SECRET, owner=OWNER, org=ORG) for _ in range(3)]
    assert len(set(sealed)) == 3
    assert not any(SECRET[:8] in each for each in sealed)


@pytest.mark.parametrize(("owner", "org"), [(OTHER, ORG), (OWNER, OTHER), (ORG, OWNER)])
def test_a_sealed_secret_copied_to_another_owner_does_not_open(owner: UUID, org: UUID) -> None:
    with pytest.raises(SealError, match="wrong owner, or damaged"):
        KEYS.open(KEYS.seal(SECRET, owner=OWNER, org=ORG), owner=owner, org=org)


@given(st.integers(min_value=4 * 8))
def test_a_damaged_secret_does_not_open(bit: int) -> None:
    sealed = bytearray(KEYS.seal(SECRET, owner=OWNER, org=ORG))
    place = 4 * 8 + bit % ((len(sealed) - 4) * 8)
    sealed[place // 8] ^= 1 << place % 8
    with pytest.raises(SealError):
        KEYS.open(bytes(sealed), owner=OWNER, org=ORG)


@pytest.mark.parametrize("length", [0, 3, 4, 16, 31])
def test_a_secret_that_was_cut_short_does_not_open(length: int) -> None:
    with pytest.raises(SealError):
        KEYS.open(KEYS.seal(SECRET, owner=OWNER, org=ORG)[:length], owner=OWNER, org=ORG)


def test_during_a_rotation_old_and_new_master_keys_open_and_the_first_seals() -> None:
    old, new, both = MasterKeys([ONE]), MasterKeys([TWO]), MasterKeys([TWO, ONE])
    assert both.open(old.seal(SECRET, owner=OWNER, org=ORG), owner=OWNER, org=ORG) == SECRET
    assert new.open(both.seal(SECRET, owner=OWNER, org=ORG), owner=OWNER, org=ORG) == SECRET


def test_fingerprints_tell_secrets_apart_and_follow_their_own_key() -> None:
    assert KEYS.fingerprint(SECRET) == MasterKeys([ONE, TWO]).fingerprint(SECRET)
    assert KEYS.fingerprint(SECRET) != KEYS.fingerprint(SECRET + b"x")
    rotated = MasterKeys([TWO, ONE]).with_fingerprint_key(KEYS.fingerprint_key)
    assert rotated.fingerprint(SECRET) == KEYS.fingerprint(SECRET)
    assert rotated.open(KEYS.seal(SECRET, owner=OWNER, org=ORG), owner=OWNER, org=ORG) == SECRET
    assert MasterKeys([TWO, ONE]).fingerprint(SECRET) != KEYS.fingerprint(SECRET)


def test_a_missing_master_key_is_said_to_be_missing() -> None:
    with pytest.raises(SealError, match="not in HOOKLEDGER_MASTER_KEY"):
        MasterKeys([TWO]).open(KEYS.seal(SECRET, owner=OWNER, org=ORG), owner=OWNER, org=ORG)


def test_master_keys_are_base64_separated_by_commas() -> None:
    text = " , ".join(base64.b64encode(key).decode() for key in (TWO, ONE))
    parsed = MasterKeys.parse(text)
    assert parsed.open(KEYS.seal(SECRET, owner=OWNER, org=ORG), owner=OWNER, org=ORG) == SECRET


@pytest.mark.parametrize("text", ["", ",", base64.b64encode(ONE).decode() + ",", base64.b64encode(bytes(33)).decode()])
def test_anything_but_32_bytes_each_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="base64 of 32 random bytes"):
        MasterKeys.parse(text)
