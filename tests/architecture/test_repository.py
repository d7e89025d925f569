"""What may stand in the repository's files at all."""

import re
import subprocess
import tomllib
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[2]


def tracked() -> list[Path]:
    """Every text file that git has, or would take."""
    listing = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=CHECKOUT,
        capture_output=True,
        check=False,
    )
    if listing.returncode:
        pytest.skip("this is no git checkout")
    paths = [CHECKOUT / name.decode() for name in listing.stdout.split(b"\0") if name]
    return [path for path in paths if path.is_file() and b"\0" not in path.read_bytes()]


def occurrences(pattern: re.Pattern[str]) -> list[str]:
    found = []
    for path in tracked():
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), start=1):
            if pattern.search(line):
                found.append(f"{path.relative_to(CHECKOUT)}:{number}: {line.strip()[:100]}")
    return found


# Package registries are the user's own choice: a mirror, a proxy, none at all. Each host is cut in two here, so that
# this file does not hold what it looks for.
REGISTRY_HOSTS = [
    ("py", "pi.org"),
    ("python", "hosted.org"),
    ("registry.npm", "js.org"),
    ("registry.yarn", "pkg.com"),
    ("proxy.golang", ".org"),
    ("crates", ".io"),
    ("rubygems", ".org"),
    ("unpkg", ".com"),
    ("jsdelivr", ".net"),
    ("deb.debian", ".org"),
    ("archive.ubuntu", ".com"),
]


def test_no_file_names_a_package_registry() -> None:
    hosts = re.compile("|".join(re.escape("".join(parts)) for parts in REGISTRY_HOSTS))
    assert occurrences(hosts) == []


def test_no_file_names_the_place_of_this_checkout() -> None:
    if len(CHECKOUT.parts) < 3:
        pytest.skip("the checkout's path is too short to be told from others")
    assert occurrences(re.compile(re.escape(str(CHECKOUT)) + r"\b")) == []


def test_no_file_holds_a_live_secret() -> None:
    keys = re.compile(
        "|".join(["sk_" + "live_[A-Za-z0-9]{16}", "-----BEGIN " + "[A-Z ]*PRIVATE KEY", "ghp_" + "[A-Za-z0-9]{36}"])
    )
    assert occurrences(keys) == []


# Rules that are switched off


def test_every_rule_that_ruff_ignores_has_its_reason_beside_it() -> None:
    lines = (CHECKOUT / "pyproject.toml").read_text().splitlines()
    begin = next(number for number, line in enumerate(lines) if line.startswith("[tool.ruff.lint]"))
    end = next(number for number, line in enumerate(lines) if line.startswith("[tool.ruff.lint.flake8"))
    rule = re.compile(r'"(?!ALL")[A-Z]{1,6}[0-9]*"')
    bare = [line for line in lines[begin:end] if rule.search(line) and not re.search(r"# \S+ \S+", line)]
    assert bare == []
    ignored = tomllib.loads("\n".join(lines))["tool"]["ruff"]["lint"]["ignore"]
    assert len(ignored) == len(set(ignored))


def test_every_exception_in_the_product_has_its_reason_beside_it() -> None:
    bare = []
    for folder in ("libs", "services", "deploy", "examples"):
        for path in sorted((CHECKOUT / folder).rglob("*.py")):
            for number, line in enumerate(path.read_text().splitlines(), start=1):
                if re.search(r"#\s*(noqa|type:\s*ignore|pragma)", line) and not re.search(
                    r"#\s*(?:noqa: [A-Z0-9, ]+?|type: ignore\[[a-z-]+\])\s*(?:  |- |# )\s*\S+ \S+", line
                ):
                    bare.append(f"{path.relative_to(CHECKOUT)}:{number}: {line.strip()}")
    assert bare == []
