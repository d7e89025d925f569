"""What the clients of a round were told, and what they know of their endpoints: the first of the three records."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from tests.faults.campaign.plan import Behaviour

CANARY: Final = "canary-7b1c0de5"
"""In every payload, so that a payload in a log is seen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """A message as its sender meant it.

    `insisted` says that its sender comes again until it is told that the message is taken.
    """

    event_type: str
    body: bytes
    way: str
    insisted: bool = True


@dataclass(slots=True, kw_only=True)
class Target:
    """An endpoint and what is due to it.

    Attributes:
        wanted: messages sent after its creation was acknowledged, while it stays: each must come.
        unwanted: messages sent after it was disabled, and that acknowledged: none may come.
    """

    id: str
    path: str
    secret: str
    event_type: str
    retries: Sequence[float]
    behaviour: Behaviour | None = None
    exact: bool = False
    fence: bool = False
    wanted: list[int] = field(default_factory=list)
    unwanted: list[int] = field(default_factory=list)


@dataclass(slots=True, kw_only=True)
class Told:
    """What the clients of one round know."""

    app: str = ""
    sent: dict[int, Sent] = field(default_factory=dict)
    answered: dict[int, set[str]] = field(default_factory=lambda: defaultdict(set))
    confirmed: set[int] = field(default_factory=set)
    targets: list[Target] = field(default_factory=list)
    refused: int = 0
    """Answers that asked to come again, such as 503."""
    protests: list[str] = field(default_factory=list)
    """Answers that no sender should get."""

    @property
    def secrets(self) -> set[str]:
        """What must never be seen in a log."""
        return {target.secret.removeprefix("whsec_") for target in self.targets} | {CANARY}
