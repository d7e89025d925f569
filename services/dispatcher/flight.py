"""An attempt in flight: what it needs to be sent and recorded."""

from uuid import UUID

from msgspec import Struct

from libs.common.domain.delivery import Delivery
from libs.common.domain.endpoint import Endpoint
from libs.common.domain.facts import AttemptStarted
from libs.common.domain.message import Message


class Flight(Struct, frozen=True, kw_only=True, gc=False):
    """An attempt whose start is committed. `endpoint` is the configuration in force when it began.

    `state` is the delivery's since then, as far as this process knows.
    `lane` is where the delivery waits; `counted` says that the lane counts it, as it does all but first attempts that
    touched none.
    `probe` says that it is the one that goes through its endpoint's breaker.
    `lease` is the epoch of the process's lease under which it was committed.
    """

    delivery: UUID
    state: Delivery
    started: AttemptStarted
    message: Message
    endpoint: Endpoint
    lane: UUID
    counted: bool
    lease: int
    probe: bool = False
