"""The ingress's process."""

from libs.common.runtime.service import Serve, run
from services.ingress.settings import IngressSettings


def main() -> None:
    """Read settings, run, exit."""
    run(
        "hookledger-ingress",
        "Accepts messages from providers, the API and the broker, and is the front door of the registry.",
        IngressSettings,
        _program,
    )


def _program() -> Serve[IngressSettings]:
    from services.ingress.app import serve  # noqa: PLC0415  most of a start: settings are looked at first

    return serve


if __name__ == "__main__":
    main()
