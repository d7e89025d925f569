"""`hookledger-registry`, or `python -m services.registry`."""

from libs.common.runtime.service import run
from services.registry.app import serve
from services.registry.settings import RegistrySettings


def main() -> None:
    """Run the registry until it is told to stop."""
    run(
        "hookledger-registry",
        "Hookledger's management API: what is registered, and what became of each message.",
        RegistrySettings,
        serve,
    )


if __name__ == "__main__":
    main()
