"""Checks Python's version, then makes the virtual environment: `python3 deploy/stack/bootstrap.py`.

This file is kept to the syntax of old Pythons, so that they read it far enough to say what they lack.
"""

import os
import pathlib
import shutil
import subprocess
import sys

OLDEST = (3, 11)


def main() -> None:
    """Go on with this Python, or with a newer one that is on the path; exit code 2 when there is none."""
    if sys.version_info < OLDEST:
        for minor in range(OLDEST[1], 20):
            newer = shutil.which("python3." + str(minor))
            # Some commands on the path are only shims, which find no Python behind them.
            if newer and subprocess.call([newer, "-c", ""], stderr=subprocess.DEVNULL) == 0:
                os.execv(newer, [newer] + sys.argv)  # noqa: S606, RUF005 - itself, by another interpreter
        found = ".".join(str(part) for part in sys.version_info[:3])
        wanted = "setup: Hookledger needs Python 3.11 or newer, and python3 is " + found
        sys.stderr.write(wanted + ": install one, then `make PYTHON=python3.11`\n")
        sys.exit(2)
    sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))
    from deploy.stack import environment  # noqa: PLC0415 - only a Python that is new enough can read it

    sys.exit(environment.main(sys.argv[1:]))


if __name__ == "__main__":
    main()
