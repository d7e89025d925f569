"""`make bench-page`: writes the figures of bench/results into docs/performance.md, and draws those of `make bench`."""

import subprocess
import sys
from collections.abc import Mapping
from typing import Any, Final

from bench.figures import CEILINGS, FIGURES, MOST_MOVED_MS, PARTS, Judged
from bench.report import DISPATCH, LATEST, read, spelled, verdict
from deploy.stack.environment import BENCH
from deploy.stack.places import CHECKOUT

PAGE: Final = CHECKOUT / "docs" / "performance.md"
PICTURE: Final = CHECKOUT / "docs" / "performance.png"
_SIGNS: Final = {
    Judged.LEAST_RATIO: "ratio ≥ ",
    Judged.MOST_RATIO: "ratio ≤ ",
    Judged.LEAST_VALUE: "≥ ",
    Judged.MOST_VALUE: "≤ ",
    Judged.MOST_RATIO_OR_MOVED: f"{MOST_MOVED_MS:.0f} ms more, or ratio ≤ ",
}


def main() -> int:
    """Write both; exit code 2 where nothing was measured yet."""
    if not LATEST.exists():
        print("bench-page: nothing was measured yet: run `make bench`", file=sys.stderr)
        return 2
    document = read()
    PAGE.write_text(filled(PAGE.read_text(), document))
    if DISPATCH.exists():
        PAGE.write_text(dispatching(PAGE.read_text(), read(DISPATCH)))
    subprocess.run([BENCH.python, CHECKOUT / "bench" / "plot.py", LATEST, PICTURE], check=True)
    return 0


def filled(page: str, document: Mapping[str, Any]) -> str:
    """The page with each part between `<!-- name -->` and `<!-- /name -->` written anew."""
    for name, lines in (("figures", figures(document)), ("ceilings", ceilings(document)), ("cost", cost(document))):
        page = _with_part(page, name, lines)
    return page


def dispatching(page: str, document: Mapping[str, Any]) -> str:
    """The page with what `make bench-dispatch` has measured."""
    return _with_part(page, "dispatching", [*figures(document), "", *ceilings(document)])


def _with_part(page: str, name: str, lines: list[str]) -> str:
    begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    before, _, rest = page.partition(begin)
    return f"{before}{begin}\n" + "\n".join(lines) + f"\n{end}{rest.partition(end)[2]}"


def figures(document: Mapping[str, Any]) -> list[str]:
    """The table of figures, as Markdown."""
    machine = document["machine"]
    lines = [
        f"{machine['cores']} cores ({machine['cpu']}), {machine['memory_gib']} GiB, {document['at'][:10]}.",
        f"Python {machine['python']}, {machine['postgres']}, {machine['rabbitmq']}.",
        "",
        "| figure | value | ratio | must | aim | |",
        "|---|---|---|---|---|---|",
    ]
    for name, row in document["figures"].items():
        figure = FIGURES[name]
        if name.endswith(tuple(f"_{part}_us" for part in PARTS)):
            continue  # in a table of their own
        sign = "" if figure.judged is None else _SIGNS[figure.judged]
        bounds = ["" if bound is None else f"{sign}{spelled(bound)}" for bound in (figure.must, figure.aim)]
        ratio = "" if row["ratio"] is None else f"{row['ratio']:.2f} of `{row['ceiling']}`"
        cells = (figure.means, f"{spelled(row['value'])} {row['unit']}", ratio, *bounds, verdict(figure, row))
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def ceilings(document: Mapping[str, Any]) -> list[str]:
    """The table of ceilings, as Markdown."""
    lines = ["| ceiling | what | value |", "|---|---|---|"]
    for name, value in document["ceilings"].items():
        means, unit = CEILINGS[name]
        lines.append(f"| `{name}` | {means} | {spelled(value)} {unit} |")
    return lines


def cost(document: Mapping[str, Any]) -> list[str]:
    """The table of processor time by part, as Markdown."""
    lines = ["| part | saturated | at 500/s |", "|---|---|---|"]
    for part in (*PARTS, ""):
        suffix = f"_{part}_us" if part else "_us"
        rows = [document["figures"].get(f"{name}{suffix}") for name in ("cpu_per_delivery", "cpu_per_delivery_500")]
        cells = ["" if row is None else f"{spelled(row['value'])} µs" for row in rows]
        lines.append(f"| {part or '**all**'} | {' | '.join(cells)} |")
    return lines


if __name__ == "__main__":
    sys.exit(main())
