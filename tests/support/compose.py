"""deploy/compose.yaml, as it is read with deploy/.env."""

import re
from collections.abc import Mapping
from typing import Any, Final

import yaml

from deploy.stack.places import CHECKOUT

DEPLOY: Final = CHECKOUT / "deploy"
COMPOSE: Final[dict[str, Any]] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())


def filled(value: str, variables: Mapping[str, str]) -> str:
    """A value of compose's with its variables; an unknown one is "secret", unless it has a default."""
    return re.sub(
        r"\$\{(\w+)(?::([?-])([^}]*))?\}",
        lambda found: variables.get(found[1], found[3] if found[2] == "-" else "secret"),
        value,
    )
