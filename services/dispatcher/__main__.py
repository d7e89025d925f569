"""The dispatcher's process."""

from libs.common.runtime.service import Serve, run
from services.dispatcher.settings import DispatcherSettings


def main() -> None:
    """Read settings, run, exit."""
    run(
        "hookledger-dispatcher",
        "Fans out accepted messages, delivers them signed, retries, and records every attempt in the ledger.",
        DispatcherSettings,
        _program,
    )


def _program() -> Serve[DispatcherSettings]:
    from services.dispatcher.app import serve  # noqa: PLC0415  most of a start: settings are looked at first

    return serve


if __name__ == "__main__":
    main()
