"""`hookledger`, or `python -m services.admin`."""

from services.admin.commands import commands


def main() -> None:
    """Run the command that the arguments name."""
    commands(prog_name="hookledger")


if __name__ == "__main__":
    main()
