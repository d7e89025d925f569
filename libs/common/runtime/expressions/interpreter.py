"""The evaluation of an expression within a budget of steps.

jmespath alone has no bound: `[@,@][] | [@,@][] | …` doubles a list with every ten characters, and a shared part of a
value is written out once for each time that it is referred to. So each node visited costs a step, and whatever
copies, compares or walks values costs as many steps as it touches, taken *before* it is done. Steps, not seconds: the
same expression on the same payload comes to the same end on every machine and in every attempt.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final, cast

from jmespath.functions import Functions
from jmespath.visitor import TreeInterpreter

from libs.common.runtime.expressions.compiled import Node

_COPIED_PER_STEP: Final = 256
"""Characters, or elements of a list, that C copies or compares in about the time of a step."""
_FUNCTIONS: Final = Functions()


class TooCostlyError(Exception):
    """The budget was spent before the evaluation came to an end."""


class Budget:
    """Steps that are left."""

    __slots__ = ("steps",)

    def __init__(self, steps: int) -> None:
        self.steps = steps

    def spend(self, steps: int) -> None:
        """Use up so many.

        Raises:
            TooCostlyError: there are not so many.
        """
        self.steps -= steps
        if self.steps < 0:
            raise TooCostlyError


class Interpreter(TreeInterpreter):
    """jmespath's own interpreter, which pays for what it does."""

    def __init__(self, budget: Budget) -> None:
        super().__init__()
        self._budget = budget

    def visit(self, node: Node, *args: Any, **kwargs: Any) -> Any:
        """Evaluate one node."""
        self._budget.spend(1)
        return super().visit(cast("Any", node), *args, **kwargs)

    def visit_comparator(self, node: Node, value: Any) -> Any:
        """Compare; what is not a scalar is walked by the comparison, however often its parts are shared."""
        left, right = (self.visit(child, value) for child in node["children"])
        if isinstance(left, (list, dict, str)) and isinstance(right, (list, dict, str)):
            spend_on_all(self._budget, left)
        if node["value"] in {"eq", "ne"} or (_ordered(left) and _ordered(right)):
            return self.COMPARATOR_FUNC[node["value"]](left, right)
        return None

    def visit_flatten(self, node: Node, value: Any) -> Any:
        """Merge lists; the only node, but for the functions, that makes more than it visits."""
        base = self.visit(node["children"][0], value)
        if not isinstance(base, list):
            return None
        self._budget.spend(sum(len(each) if isinstance(each, list) else 1 for each in base))
        merged: list[Any] = []
        for each in base:
            merged += each if isinstance(each, list) else [each]
        return merged

    def visit_slice(self, node: Node, value: Any) -> Any:
        """Copy a part of a list."""
        if isinstance(value, list):
            self._budget.spend(len(value) // _COPIED_PER_STEP)
        return super().visit_slice(cast("Any", node), value)

    def visit_function_expression(self, node: Node, value: Any) -> Any:
        """Call a function."""
        arguments = [self.visit(child, value) for child in node["children"]]
        _PRICES.get(node["value"], _spend_on_elements)(self._budget, arguments)
        return _FUNCTIONS.call_function(node["value"], arguments)


def _ordered(value: Any) -> bool:
    """Whether jmespath compares it by more than equality."""
    return isinstance(value, (int, float, str)) and not isinstance(value, bool)


def spend_on_all(budget: Budget, value: Any) -> None:
    """Pay for a walk through all of a value, as writing it or comparing it takes."""
    pending = [value]
    while pending:
        item = pending.pop()
        match item:
            case str():
                budget.spend(_characters(item))
            case list():
                budget.spend(len(item))
                pending.extend(item)
            case dict():
                budget.spend(len(item))
                pending.extend(item.values())
                pending.extend(item)
            case _:
                pass


def _characters(text: str) -> int:
    return 1 + len(text) // _COPIED_PER_STEP


def _spend_on_elements(budget: Budget, arguments: list[Any]) -> None:
    for argument in arguments:
        match argument:
            case str():
                budget.spend(_characters(argument))
            case list():
                budget.spend(len(argument) + sum(_characters(each) for each in argument if isinstance(each, str)))
            case dict():
                budget.spend(len(argument))
            case _:
                pass


def _spend_on_everything(budget: Budget, arguments: list[Any]) -> None:
    for argument in arguments:
        spend_on_all(budget, argument)


def _spend_on_sorting(budget: Budget, arguments: list[Any]) -> None:
    _spend_on_elements(budget, arguments)
    for argument in arguments:
        if isinstance(argument, list):
            budget.spend(len(argument) * len(argument).bit_length() // 4)


def _spend_on_joining(budget: Budget, arguments: list[Any]) -> None:
    _spend_on_elements(budget, arguments)
    match arguments:
        case [str() as separator, list() as parts]:
            budget.spend(len(parts) * len(separator) // _COPIED_PER_STEP)
        case _:
            pass


def _free(_budget: Budget, _arguments: list[Any]) -> None:
    pass


_PRICES: Final[Mapping[str, Callable[[Budget, list[Any]], None]]] = {
    "contains": _spend_on_everything,
    "join": _spend_on_joining,
    "length": _free,
    "not_null": _free,
    "sort": _spend_on_sorting,
    "sort_by": _spend_on_sorting,
    "to_array": _free,
    "to_string": _spend_on_everything,
    "type": _free,
}
"""What a call costs; the functions that are not named pass once over the elements of their arguments."""
