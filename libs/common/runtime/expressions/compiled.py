"""Expressions as users write them, parsed and judged before anything is evaluated.

Source: https://jmespath.org/specification.html
"""

import warnings
from collections.abc import Iterator, Mapping
from functools import lru_cache
from itertools import pairwise
from typing import Any, Final, TypeAlias

from jmespath.exceptions import EmptyExpressionError, IncompleteExpressionError, JMESPathError, LexerError, ParseError
from jmespath.functions import Functions
from jmespath.lexer import Lexer
from jmespath.parser import Parser

LONGEST_EXPRESSION: Final = 2048
"""In characters."""
DEEPEST_EXPRESSION: Final = 50
"""Nested expressions: the interpreter is recursive."""
_KEPT: Final = 1024

Node: TypeAlias = Mapping[str, Any]


class BadExpressionError(ValueError):
    """A text is no expression that is taken here. Whoever wrote it erred.

    Args:
        column: of the first character that is wrong, counted from 1.
    """

    def __init__(self, reason: str, column: int) -> None:
        super().__init__(f"column {column}: {reason}")
        self.column = column


@lru_cache(_KEPT)
def compiled(text: str) -> Node:
    """The tree of an expression.

    Raises:
        BadExpressionError: it does not parse, calls an unknown function, or is too long or nested too deeply.
    """
    if len(text) > LONGEST_EXPRESSION:
        raise BadExpressionError(f"it has at most {LONGEST_EXPRESSION} characters", LONGEST_EXPRESSION + 1)
    try:
        with warnings.catch_warnings():
            # `active` in backticks, for '"active"', is deprecated and what many write.
            warnings.simplefilter("ignore", PendingDeprecationWarning)
            tree: Node = Parser().parse(text).parsed
    except JMESPathError as error:
        raise _located(error, text) from None
    except RecursionError:
        raise BadExpressionError("it is nested too deeply", 1) from None
    except ValueError:
        # A number with thousands of digits, say.
        raise BadExpressionError("it holds a value that cannot be read", 1) from None
    if _depth(tree) > DEEPEST_EXPRESSION:
        raise BadExpressionError(f"it is nested deeper than {DEEPEST_EXPRESSION}", 1)
    for node in _nodes(tree):
        if node["type"] == "function_expression":
            _check_call(node, text)
    return tree


def _located(error: JMESPathError, text: str) -> BadExpressionError:
    match error:
        case EmptyExpressionError():
            return BadExpressionError("it is empty", 1)
        case IncompleteExpressionError():
            return BadExpressionError("the expression ends too soon", len(text) + 1)
        case LexerError():
            return BadExpressionError(error.message, error.lexer_position + 1)
        case ParseError():
            return BadExpressionError(f"unexpected {error.token_value!r}", error.lex_position + 1)
        case _:
            return BadExpressionError(str(error), 1)


def _check_call(node: Node, text: str) -> None:
    name, given = node["value"], len(node["children"])
    function = Functions.FUNCTION_TABLE.get(name)
    if function is None:
        raise BadExpressionError(f"there is no function {name}()", _column_of_call(text, name))
    wanted = function["signature"]
    variadic = bool(wanted) and bool(wanted[-1].get("variadic"))
    if given < len(wanted) if variadic else given != len(wanted):
        least = "at least " if variadic else ""
        raise BadExpressionError(f"{name}() takes {least}{len(wanted)} and not {given}", _column_of_call(text, name))


def _column_of_call(text: str, name: str) -> int:
    tokens = list(Lexer().tokenize(text))
    for token, following in pairwise(tokens):
        if token["value"] == name and following["type"] == "lparen":
            return int(token["start"]) + 1
    return 1


def _nodes(tree: Node) -> Iterator[Node]:
    pending = [tree]
    while pending:
        node = pending.pop()
        yield node
        pending.extend(_inner(node))


def _depth(tree: Node) -> int:
    depth, level = 0, [tree]
    while level:
        depth += 1
        level = [inner for node in level for inner in _inner(node)]
    return depth


def _inner(node: Node) -> list[Node]:
    # The children of a slice are numbers.
    return [child for child in node["children"] if isinstance(child, dict)]
