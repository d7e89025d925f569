"""An attempt in flight: what it needs to be sent and recorded."""

from dataclasses import dataclass
from uuid import UUID

from libs.common.domain.endpoint import Endpoint
from libs.common.domain.facts import AttemptStarted
from libs.common.domain.message import Message


@dataclass(frozen=True, slots=True, kw_only=True)
class Flight:
    """An attempt whose start is committed. `endpoint` is the configuration in force when it began.

    `counted` says that the endpoint's lane counts it; otherwise it is a first attempt out of this replica's share.
    `lease` is the epoch of the process's lease under which it was committed.
    """

    delivery: UUID
    started: AttemptStarted
    message: Message
    endpoint: Endpoint
    counted: bool
    lease: int
