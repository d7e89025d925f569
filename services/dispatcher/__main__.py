"""The dispatcher's process."""

from libs.common.runtime.service import run
from services.dispatcher.app import serve
from services.dispatcher.settings import DispatcherSettings


def main() -> None:
    """Read settings, run, exit."""
    run(
        "hookledger-dispatcher",
        "Fans out accepted messages, delivers them signed, retries, and records every attempt in the ledger.",
        DispatcherSettings,
        serve,
    )


if __name__ == "__main__":
    main()
