"""Writes the PrometheusRule for Kubernetes from deploy/prometheus/rules.yaml: `python -m deploy.alerts`."""

import sys
from pathlib import Path
from typing import Any, Final

import yaml

CHECKOUT: Final = Path(__file__).parents[1]
RULES: Final = CHECKOUT / "deploy" / "prometheus" / "rules.yaml"
COMPONENT: Final = CHECKOUT / "deploy" / "kubernetes" / "components" / "monitoring" / "rules.yaml"
RUNBOOKS: Final = CHECKOUT / "docs" / "runbooks"

_HEAD: Final = """\
# Made by `make configuration` from deploy/prometheus/rules.yaml.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: hookledger
spec:
"""


def rules() -> list[dict[str, Any]]:
    """Every rule."""
    document = yaml.safe_load(RULES.read_text(encoding="utf-8"))
    return [rule for group in document["groups"] for rule in group["rules"]]


def component() -> str:
    """The same rules as a resource of the Prometheus operator."""
    text = RULES.read_text(encoding="utf-8")
    lines = text[text.index("groups:") :].splitlines(keepends=True)
    return _HEAD + "".join(f"  {line}" for line in lines)


def main() -> int:
    """Write it."""
    COMPONENT.write_text(component(), encoding="utf-8")
    print(f"configuration: {COMPONENT.relative_to(CHECKOUT)} is written")
    return 0


if __name__ == "__main__":
    sys.exit(main())
