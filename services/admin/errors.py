"""What the operator can mend is one line and an exit code, never a traceback."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import asyncpg
import typer

from libs.common.contracts.ledger import UnknownFactError
from libs.common.postgres.migrate import SchemaError
from libs.common.postgres.pool import CONNECTION_ERRORS, DatabaseUnavailableError, reason
from libs.common.postgres.rebuild import RebuildRunningError
from libs.common.postgres.retaining import RetainingError
from libs.common.rabbitmq.connection import BrokerRefusedError, BrokerUnavailableError
from libs.common.runtime.settings import SettingsError
from services.admin.creation import CreationError
from services.admin.feed import FeedError

NOT_ALL: Final = 1
OPERATOR_ERRS: Final = 2


@contextmanager
def operator_errors() -> Iterator[None]:
    """Say what is to be mended, and exit with 2."""
    try:
        yield
    except (
        SettingsError,
        DatabaseUnavailableError,
        SchemaError,
        CreationError,
        UnknownFactError,
        RebuildRunningError,
        RetainingError,
        BrokerRefusedError,
        BrokerUnavailableError,
        FeedError,
    ) as error:
        line = str(error)
    except (*CONNECTION_ERRORS, ValueError) as error:
        line = reason(error)
    except asyncpg.PostgresError as error:
        line = f"Postgres refuses: {error}"
    else:
        return
    typer.echo(f"hookledger: {' '.join(line.split())}", err=True)
    raise typer.Exit(OPERATOR_ERRS)
