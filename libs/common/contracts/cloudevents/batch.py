"""CloudEvents in a batch: a JSON array, of which each element is an event in structured JSON.

The elements are slices of the array's bytes, judged one by one, so that one bad event leaves its siblings alone.
Source: CloudEvents 1.0.2, "JSON Event Format", section 4.
"""

from typing import Final

import msgspec

from libs.common.contracts.cloudevents.event import MalformedCloudEventError

CONTENT_TYPE: Final = "application/cloudevents-batch+json"
MAX_EVENTS: Final = 1_000

_RAW_ELEMENTS: Final = msgspec.json.Decoder(list[msgspec.Raw])


def split(body: bytes) -> list[bytes]:
    """The elements' bytes, as they stand in the array; none for an empty one.

    Raises:
        MalformedCloudEventError: not a JSON array, or more than `MAX_EVENTS`.
    """
    try:
        elements = _RAW_ELEMENTS.decode(body)
    except msgspec.ValidationError:
        raise MalformedCloudEventError("the batch is not a JSON array") from None
    except (msgspec.DecodeError, RecursionError):
        raise MalformedCloudEventError("the batch is not valid JSON") from None
    if len(elements) > MAX_EVENTS:
        raise MalformedCloudEventError(f"the batch has more than {MAX_EVENTS} events")
    return [bytes(element) for element in elements]
