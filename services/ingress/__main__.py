"""The ingress's process."""

from libs.common.runtime.service import run
from services.ingress.app import serve
from services.ingress.settings import IngressSettings


def main() -> None:
    """Read settings, run, exit."""
    run(
        "hookledger-ingress",
        "Accepts messages from providers, the API and the broker, and is the front door of the registry.",
        IngressSettings,
        serve,
    )


if __name__ == "__main__":
    main()
