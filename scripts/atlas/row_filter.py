"""Which rows of a table a text such as ``row < 512 and split == 'a'`` selects, without running anything.

The text is parsed, and its tree is walked here: comparisons of columns and constants, `in`, `and`, `or`, `not` (or `&`,
`|`, `~` between parentheses), sums, differences and remainders of numbers. A column whose name is no word stands in
backticks. Everything else is refused, whatever it would do.
"""

import ast
import operator
import re
from collections.abc import Callable
from functools import reduce
from typing import Any

import pandas as pd

OPERATORS: dict[type[ast.AST], Callable[[Any, Any], Any]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.In: lambda column, values: column.isin(values),
    ast.NotIn: lambda column, values: ~column.isin(values),
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mod: operator.mod,
    ast.BitAnd: operator.and_,
    ast.BitOr: operator.or_,
    ast.And: operator.and_,
    ast.Or: operator.or_,
}
QUOTED = re.compile(r"'[^'\\]*'|\"[^\"\\]*\"|`([^`]*)`")


def selected(frame: pd.DataFrame, text: str) -> pd.Series:
    """True for the rows that ``text`` selects; raises ValueError where it is no comparison of columns."""
    names: list[str] = []

    def hide(match: re.Match[str]) -> str:
        if match[1] is None:
            return match[0]
        names.append(match[1])
        return f"column_in_backticks_{len(names) - 1}"

    try:
        tree = ast.parse(QUOTED.sub(hide, text.strip()), mode="eval").body
    except (SyntaxError, MemoryError, RecursionError) as error:
        raise ValueError(str(error)) from None
    columns = {f"column_in_backticks_{i}": name for i, name in enumerate(names)}
    found = _value(tree, frame, columns)
    if not isinstance(found, pd.Series) or found.dtype != bool:
        raise ValueError("it compares nothing")
    return found


def _value(node: ast.AST, frame: pd.DataFrame, columns: dict[str, str]) -> Any:
    """A column, a truth value for each row, a constant, or a list of constants."""

    def value(inner: ast.AST) -> Any:
        return _value(inner, frame, columns)

    match node:
        case ast.Name(id=name):
            name = columns.get(name, name)
            if name not in frame.columns:
                raise ValueError(f"no column {name!r}")
            return frame[name]
        case ast.Constant(value=str() | int() | float()):
            return node.value
        case ast.List(elts=elements) | ast.Tuple(elts=elements):
            if not all(isinstance(element, ast.Constant) for element in elements):
                raise ValueError("a list holds constants only")
            return [value(element) for element in elements]
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float())):
            return -value(node.operand)
        case ast.UnaryOp(op=ast.Not() | ast.Invert(), operand=operand):
            return ~_truth(value(operand))
        case ast.BoolOp(op=op, values=values):
            return reduce(OPERATORS[type(op)], [_truth(value(inner)) for inner in values])
        case ast.BinOp(op=ast.BitAnd() | ast.BitOr(), left=left, right=right):
            return OPERATORS[type(node.op)](_truth(value(left)), _truth(value(right)))
        case ast.BinOp(op=ast.Add() | ast.Sub() | ast.Mod(), left=left, right=right):
            return OPERATORS[type(node.op)](_number(value(left)), _number(value(right)))
        case ast.Compare(left=left, ops=ops, comparators=others) if all(type(op) in OPERATORS for op in ops):
            values = [value(left), *map(value, others)]
            return reduce(
                operator.and_, [_compare(op, a, b) for op, a, b in zip(ops, values[:-1], values[1:], strict=True)]
            )
    raise ValueError(f"{ast.unparse(node)[:60]!r} is more than that")


def _compare(op: ast.cmpop, a: Any, b: Any) -> Any:
    if isinstance(op, ast.In | ast.NotIn) and not (isinstance(a, pd.Series) and isinstance(b, list)):
        raise ValueError("`in` stands between a column and a list")
    if not isinstance(a, pd.Series) and not isinstance(b, pd.Series):
        raise ValueError("a comparison needs a column")
    return OPERATORS[type(op)](a, b)


def _truth(found: Any) -> Any:
    if not isinstance(found, pd.Series) or found.dtype != bool:
        raise ValueError("`and`, `or` and `not` stand between comparisons")
    return found


def _number(found: Any) -> Any:
    if isinstance(found, str | list | bool) or (isinstance(found, pd.Series) and found.map(type).eq(str).any()):
        raise ValueError("sums are of numbers only")
    return found
