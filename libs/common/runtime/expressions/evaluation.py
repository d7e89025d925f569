"""Filters and transformations on a payload: what they come to, or why they come to nothing."""

from enum import StrEnum
from typing import Any, Final

import orjson

from libs.common.domain.endpoint import FilterVerdict
from libs.common.domain.message import MAX_BODY_BYTES
from libs.common.runtime.expressions.compiled import BadExpressionError, compiled
from libs.common.runtime.expressions.interpreter import Budget, Interpreter, TooCostlyError, spend_on_all

MOST_STEPS: Final = 10_000
"""For one expression on one payload; at most about twenty milliseconds."""
MOST_FILTER_STEPS: Final = 25_000
"""For all filters of an application on one message."""

# What jmespath, or Python under it, raises for an expression that does not apply to a value.
_DOES_NOT_APPLY: Final = (ValueError, TypeError, ArithmeticError, LookupError, RecursionError)


class TransformationFault(StrEnum):
    """Why a transformation has no result, without anything of the payload."""

    PAYLOAD_NOT_JSON = "payload_not_json"
    TOO_COSTLY = "too_costly"
    BAD_EXPRESSION = "bad_expression"
    DOES_NOT_APPLY = "does_not_apply"
    RESULT_TOO_LARGE = "result_too_large"


class TransformationError(Exception):
    """The transformation has no result on this payload.

    The message says why, to whoever may see the payload: it may quote values of it. What is logged is the fault.
    """

    def __init__(self, fault: TransformationFault, message: str) -> None:
        super().__init__(message)
        self.fault = fault


class PayloadFilters:
    """Judges one message by the filters of its application.

    The payload is parsed when the first filter asks, and once; a filter that several endpoints share is evaluated once.
    """

    def __init__(self, body: bytes) -> None:
        self._body = body
        self._payload: Any = None
        self._readable: bool | None = None
        self._left = MOST_FILTER_STEPS
        self._verdicts: dict[str, FilterVerdict] = {}

    @property
    def asked(self) -> bool:
        """Whether any filter was."""
        return self._readable is not None

    def judge(self, expression: str) -> FilterVerdict:
        """Whether the payload passes this filter: whether its result is `true`."""
        known = self._verdicts.get(expression)
        if known is None:
            known = self._verdicts[expression] = self._judge(expression)
        return known

    def _judge(self, expression: str) -> FilterVerdict:
        if self._readable is None:
            self._parse()
        if not self._readable:
            return FilterVerdict.FAILED
        budget = Budget(min(MOST_STEPS, self._left))
        given = budget.steps
        try:
            result = Interpreter(budget).visit(compiled(expression), self._payload)
        except TooCostlyError:
            return FilterVerdict.TOO_COSTLY
        except _DOES_NOT_APPLY:
            return FilterVerdict.FAILED
        finally:
            self._left -= given - max(budget.steps, 0)
        return FilterVerdict.PASSED if result is True else FilterVerdict.NOT_PASSED

    def _parse(self) -> None:
        try:
            self._payload = orjson.loads(self._body)
        except orjson.JSONDecodeError:
            self._readable = False
        else:
            self._readable = True


def transform(expression: str, body: bytes) -> bytes:
    """The JSON that an expression makes of a payload: always the same for the same two.

    Raises:
        TransformationError: see there.
    """
    try:
        payload = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise TransformationError(TransformationFault.PAYLOAD_NOT_JSON, "the payload is not JSON") from None
    budget = Budget(MOST_STEPS)
    try:
        result = Interpreter(budget).visit(compiled(expression), payload)
        spend_on_all(budget, result)
        made = orjson.dumps(result)
    except TooCostlyError:
        message = f"it takes more than {MOST_STEPS} steps on this payload"
        raise TransformationError(TransformationFault.TOO_COSTLY, message) from None
    except BadExpressionError as error:
        raise TransformationError(TransformationFault.BAD_EXPRESSION, str(error)) from None
    except _DOES_NOT_APPLY as error:
        raise TransformationError(TransformationFault.DOES_NOT_APPLY, _reason(error)) from None
    if len(made) > MAX_BODY_BYTES:
        message = f"its result is larger than {MAX_BODY_BYTES} bytes"
        raise TransformationError(TransformationFault.RESULT_TOO_LARGE, message)
    return made


def _reason(error: Exception) -> str:
    """One line, without more of the payload than a person needs."""
    line = str(error).partition("\n")[0]
    return f"it does not apply to this payload: {line[:200] or type(error).__name__}"
