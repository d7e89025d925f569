"""Failpoints from a test's side: kill or freeze a running service exactly where it hurts, or set its clock wrong."""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from libs.common.runtime.failpoints import CLOCK, HIT, Failpoint
from tests.support.patience import PATIENCE_SECONDS, eventually


class Failpoints:
    """The failpoints of all services that were started with `settings`.

    Args:
        folder: of their own; made if missing.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder

    @property
    def settings(self) -> Mapping[str, str]:
        """What a service is started with, so that these failpoints are its own."""
        return {"FAILPOINTS": str(self._folder)}

    def arm(self, point: Failpoint, action: Literal["kill", "freeze"] = "kill", *, after: int = 1) -> None:
        """Have `action` befall the process that is the first to reach `point` for the `after`th time from now on."""
        self._hit(point).unlink(missing_ok=True)
        self._write(point, f"{action} {after}")

    async def hit(self, point: Failpoint, *, within: float = PATIENCE_SECONDS) -> None:
        """Return as soon as a process has reached the armed `point`; it may yet have a moment to live.

        Raises:
            AssertionError: none did within so many seconds.
        """

        async def reached() -> bool:
            return self._hit(point).exists()

        try:
            await eventually(reached, bool, within=within)
        except AssertionError:
            raise AssertionError(f"nobody reached {point} within {within:.0f} s") from None

    def step_clock(self, seconds: float) -> None:
        """Have the wall clocks of these services be off by so many seconds; the monotonic ones stay."""
        self._write(CLOCK, str(seconds))

    def disarm(self) -> None:
        """Have nothing more happen, and the clocks be right again."""
        for file in self._folder.iterdir():
            file.unlink(missing_ok=True)

    def _hit(self, point: Failpoint) -> Path:
        return self._folder / f"{point}{HIT}"

    def _write(self, name: str, text: str) -> None:
        draft = self._folder / f"{name}.draft"
        draft.write_text(text, encoding="ascii")
        draft.replace(self._folder / name)  # in one step: a service may be reading
