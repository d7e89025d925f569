"""The key by which secrets get their fingerprints: one for the installation, sealed like a secret.

So a fingerprint stays the same when master keys are rotated, and who only reads the database cannot test guesses.
"""

from typing import Final
from uuid import UUID

from libs.common.postgres.pool import Pool
from libs.common.runtime.sealing import MasterKeys

_PLACE: Final = UUID(int=0)
"""Its id, and in place of its owner and organisation."""


async def fingerprint_key(pool: Pool, master_keys: MasterKeys) -> bytes:
    """The installation's key; the one that `master_keys` has, where there is none yet.

    Raises:
        SealError: it was sealed with a master key that is not among these.
    """
    await pool.execute(
        """
        INSERT INTO hookledger.secret (id, owner, org, sealed, created_at)
        VALUES ($1, $1, $1, $2, clock_timestamp()) ON CONFLICT (id) DO NOTHING
        """,
        _PLACE,
        master_keys.seal(master_keys.fingerprint_key, owner=_PLACE, org=_PLACE),
    )
    sealed = await pool.fetchval("SELECT sealed FROM hookledger.secret WHERE id = $1", _PLACE)
    return master_keys.open(sealed, owner=_PLACE, org=_PLACE)
