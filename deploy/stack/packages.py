"""The distribution's packages, fetched and unpacked into a folder: no root, no installation.

Standard library only: the bootstrap uses it before there is a virtual environment.
"""

import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from deploy.stack.errors import StackError
from deploy.stack.places import last_line, make_folder

# Only what lies in our folder is written. The hooks of the machine's own apt (they clean its caches and
# build its indexes) are not ours to run.
_CONFIGURATION = """\
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
Dir::State::Lists "{folder}/lists";
Dir::Cache "{folder}/cache";
Dir::Cache::Archives "{folder}/cache/archives";
Dir::Log "{folder}/log";
Acquire::Languages "none";
Acquire::Retries "3";
Acquire::IndexTargets::deb::DEP-11::DefaultEnabled "false";
Acquire::IndexTargets::deb::Contents-deb::DefaultEnabled "false";
APT::Sandbox::User "root";
"""
_ONLY_DEPENDS = tuple(
    f"--no-{kind}" for kind in ("recommends", "suggests", "conflicts", "breaks", "replaces", "enhances")
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Packages:
    """The distribution's package index as of now, kept in `folder`."""

    folder: Path

    @classmethod
    def fetch_index(cls, folder: Path) -> Self:
        """Read the index from the machine's own package sources, over the network.

        Raises:
            StackError: this machine has no apt.
        """
        for tool in ("apt-get", "apt-cache", "dpkg"):
            if not shutil.which(tool):
                raise StackError(f"this machine has no {tool}")
        for name in ("lists/partial", "cache/archives/partial", "log", "packages"):
            make_folder(folder / name)
        (folder / "apt.conf").write_text(_CONFIGURATION.format(folder=folder))
        packages = cls(folder=folder)
        # A source that cannot be reached is no matter, as long as the packages can be had from the others.
        packages._run("apt-get", "update")
        return packages

    def needed_by(self, package: str) -> list[str]:
        """What a package depends on, directly or not, by name, alternatives included."""
        answer = self._run("apt-cache", "depends", "--recurse", *_ONLY_DEPENDS, package)
        return sorted({line.partition(":")[0] for line in answer.splitlines() if re.match(r"[a-z0-9]", line)})

    def missing_libraries(self, packages: list[str]) -> list[str]:
        """Those libraries that an installation of `packages` would add to this machine."""
        planned = self._run("apt-get", "-s", "--no-install-recommends", "install", *packages)
        return re.findall(r"^Inst (lib\S+)", planned, flags=re.MULTILINE)

    def unpack(self, names: list[str], target: Path) -> None:
        """Download packages and unpack them into `target`.

        Raises:
            StackError: one cannot be had.
        """
        self._run("apt-get", "download", *names)
        found = {path.name.partition("_")[0]: path for path in (self.folder / "packages").glob("*.deb")}
        missing = [name for name in names if name.partition(":")[0] not in found]
        if missing:
            raise StackError(f"the package {missing[0]} cannot be downloaded ({last_line(self._log)})")
        for path in found.values():
            subprocess.run(["dpkg", "-x", path, target], check=True, cwd=self.folder)

    def _run(self, tool: str, *words: str) -> str:
        """The output of one of apt's tools; what it complains about goes to the log."""
        with self._log.open("a") as complaints:
            return subprocess.run(
                [tool, "-q", "-c", self.folder / "apt.conf", *words],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=complaints,
                text=True,
                check=False,
                cwd=self.folder / "packages",
            ).stdout

    @property
    def _log(self) -> Path:
        return self.folder / "complaints"
