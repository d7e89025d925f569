"""Renders the overlays of deploy/kubernetes to build/manifests: `python -m deploy.manifests`.

kustomize does it, alone or within kubectl. It is a program of its own that neither PyPI nor Debian 12 has in a version
that knows components and labels, so what it made is committed too, under a digest of what it was made from: where there
is no kustomize, and the digest still fits, that is what is written.
"""

import hashlib
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import yaml

CHECKOUT: Final = Path(__file__).parents[1]
TREE: Final = CHECKOUT / "deploy" / "kubernetes"
RENDERED: Final = TREE / "rendered"
OVERLAYS: Final = ("dev", "production")
_MISSING: Final = "deploy/kubernetes has changed since it was rendered: install kustomize 5 or kubectl 1.30 or newer"


def kustomize() -> list[str] | None:
    """The command that renders a folder, where there is one on this machine, and new enough."""
    for words, asking in ((["kustomize", "build"], ["version"]), (["kubectl", "kustomize"], ["version", "--client"])):
        if shutil.which(words[0]):
            said = subprocess.run([words[0], *asking], capture_output=True, text=True, check=False).stdout
            if re.search(r"^(?:Kustomize Version: )?v[5-9]\.", said, flags=re.MULTILINE):
                return words
    return None


def render(folder: Path, words: list[str]) -> str:
    """What kustomize makes of `folder`.

    Raises:
        RuntimeError: it refuses; the text is its own.
    """
    done = subprocess.run([*words, str(folder)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr.strip())
    return done.stdout


def digest(tree: Path = TREE) -> str:
    """SHA-256 over every file that the overlays are made from, in hex: `tree`, and `rabbitmq` beside it."""
    found = hashlib.sha256()
    for path in sorted([*tree.rglob("*"), *(tree.parent / "rabbitmq").rglob("*")]):
        if path.is_file() and path.parent != tree / RENDERED.name:
            content = path.read_bytes()
            found.update(f"{path.relative_to(tree.parent).as_posix()} {len(content)}\n".encode() + content)
    return found.hexdigest()


def heading(overlay: str, made_from: str) -> str:
    """The first line of a rendered overlay."""
    return f"# deploy/kubernetes/overlays/{overlay}, rendered by `make manifests` from {made_from}\n"


def committed(overlay: str) -> str | None:
    """The rendering that came with the code, if it still is of this tree."""
    path = RENDERED / f"{overlay}.yaml"
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    return text if text.startswith(heading(overlay, digest())) else None


def documents(text: str) -> list[dict[str, Any]]:
    """The resources of a rendering."""
    return [document for document in yaml.safe_load_all(text) if document]


def main() -> int:
    """Write build/manifests, and the committed renderings where they are stale; exit code 2 if that cannot be done."""
    words = kustomize()
    into = CHECKOUT / "build" / "manifests"
    into.mkdir(parents=True, exist_ok=True)
    for overlay in OVERLAYS:
        text = committed(overlay)
        if words is not None:
            try:
                rendered = heading(overlay, digest()) + render(TREE / "overlays" / overlay, words)
            except RuntimeError as error:
                print(f"manifests: {overlay}: {error}", file=sys.stderr)
                return 2
            if text is None or documents(text) != documents(rendered):
                RENDERED.mkdir(exist_ok=True)
                (RENDERED / f"{overlay}.yaml").write_text(rendered, encoding="utf-8")
                print(f"manifests: deploy/kubernetes/rendered/{overlay}.yaml is written: commit it")
            text = rendered
        if text is None:
            print(f"manifests: {_MISSING}", file=sys.stderr)
            return 2
        (into / f"{overlay}.yaml").write_text(text, encoding="utf-8")
        how = "by kustomize" if words else "as committed: there is no kustomize here"
        print(f"manifests: build/manifests/{overlay}.yaml, {len(documents(text))} resources, {how}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
