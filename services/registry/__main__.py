"""`hookledger-registry`, or `python -m services.registry`."""

from libs.common.runtime.service import Serve, run
from services.registry.settings import RegistrySettings


def main() -> None:
    """Run the registry until it is told to stop."""
    run(
        "hookledger-registry",
        "Hookledger's management API: what is registered, and what became of each message.",
        RegistrySettings,
        _program,
    )


def _program() -> Serve[RegistrySettings]:
    from services.registry.app import serve  # noqa: PLC0415  most of a start: settings are looked at first

    return serve


if __name__ == "__main__":
    main()
