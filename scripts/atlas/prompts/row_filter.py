"""Which rows of a table a text such as ``row < 512 and split == 'a'`` selects, without running anything.

The text is parsed, and its tree is walked here: comparisons of columns and constants, `in`, `and`, `or`, `not` (or `&`,
`|`, `~` between parentheses), sums, differences and remainders of numbers. A column whose name is no word stands in
backticks. Everything else is refused, whatever it would do.

Like is compared with like: text with text, by `==`, `!=` and `in`; numbers with numbers. In a table of text alone (CSV,
TSV) a column is compared with numbers where every cell of it is one, in plain decimals such as 12 or -0.5.
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
ORDER = (ast.Lt, ast.LtE, ast.Gt, ast.GtE)
DECIMAL = re.compile(r"-?(?:0|[1-9]\d*)(?:\.\d+)?", re.ASCII)


def selected(frame: pd.DataFrame, text: str, written: bool = False) -> pd.Series:
    """True for the rows that ``text`` selects; ``written``: all cells are text, and may be compared as numbers.

    Raises ValueError where it is no comparison of columns, or compares text with numbers.
    """
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
    found = _value(tree, frame, columns, written)
    if not _is_truth(found):
        raise ValueError("it compares nothing")
    return found.astype(bool)


def _value(node: ast.AST, frame: pd.DataFrame, columns: dict[str, str], written: bool) -> Any:
    """A column, a truth value for each row, a constant, or a list of constants."""

    def value(inner: ast.AST) -> Any:
        return _value(inner, frame, columns, written)

    match node:
        case ast.Name(id=name):
            name = columns.get(name, name)
            if name not in frame.columns:
                raise ValueError(f"no column {name!r}")
            return frame[name]
        case ast.Constant(value=str() | int() | float()):
            return node.value
        case ast.List(elts=elements) | ast.Tuple(elts=elements):
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
            return OPERATORS[type(node.op)](_number(value(left), written), _number(value(right), written))
        case ast.Compare(left=left, ops=ops, comparators=others) if all(type(op) in OPERATORS for op in ops):
            values = [value(left), *map(value, others)]
            pairs = zip(ops, values[:-1], values[1:], strict=True)
            return reduce(operator.and_, [_compare(op, a, b, written) for op, a, b in pairs])
    raise ValueError(f"{ast.unparse(node)[:60]!r} is more than that")


def _compare(op: ast.cmpop, a: Any, b: Any, written: bool) -> Any:
    if isinstance(op, ast.In | ast.NotIn) and not (isinstance(a, pd.Series) and isinstance(b, list)):
        raise ValueError("`in` stands between a column and a list")
    if not isinstance(a, pd.Series) and not isinstance(b, pd.Series):
        raise ValueError("a comparison needs a column")
    if written and (isinstance(op, ORDER) or "number" in (_kind(a), _kind(b))):
        a, b = (_number(x, written) if isinstance(x, pd.Series) else x for x in (a, b))
    if _kind(a) != _kind(b):
        raise ValueError(f"{_named(a)} is {_kind(a)} and {_named(b)} is {_kind(b)}; compare like with like")
    if isinstance(op, ORDER) and _kind(a) != "number":
        raise ValueError(f"{_named(a)} is {_kind(a)}, which has no order; use == or in")
    return OPERATORS[type(op)](a, b).astype(bool)


def _named(found: Any) -> str:
    return f"column {found.name!r}" if isinstance(found, pd.Series) else repr(found)[:40]


def _kind(found: Any) -> str:
    """`text`, `number` or `truth value`; raises ValueError where the cells of a column, or of a list, are several."""
    if isinstance(found, pd.Series | list):
        cells = list(found)
        kinds = [_kind_of_cell(cell) for cell in cells]
        other = next((i for i, kind in enumerate(kinds) if kind != kinds[0] or kind == "nothing"), None)
        if other is not None:
            where = f"row {found.index[other]} of {_named(found)}" if isinstance(found, pd.Series) else _named(found)
            raise ValueError(f"{where} holds {cells[other]!r}, {kinds[other]} among {kinds[0]}; compare like with like")
        return kinds[0] if kinds else "nothing"
    return _kind_of_cell(found)


def _kind_of_cell(cell: Any) -> str:
    if isinstance(cell, str):
        return "text"
    if isinstance(cell, bool):
        return "truth value"
    return "number" if isinstance(cell, int | float) and cell == cell else "nothing"


def _is_truth(found: Any) -> bool:
    return isinstance(found, pd.Series) and (found.dtype == bool or _kind(found) in ("truth value", "nothing"))


def _truth(found: Any) -> Any:
    if not _is_truth(found):
        raise ValueError("`and`, `or` and `not` stand between comparisons")
    return found.astype(bool)


def _number(found: Any, written: bool) -> Any:
    """A number, or a column as numbers."""
    if written and isinstance(found, pd.Series) and _kind(found) == "text":
        odd = next(((row, cell) for row, cell in found.items() if not DECIMAL.fullmatch(cell)), None)
        if odd is not None:
            raise ValueError(f"row {odd[0]} of {_named(found)} is {odd[1][:40]!r}, no plain number")
        return found.map(lambda cell: float(cell) if "." in cell else int(cell)).astype(object)
    if isinstance(found, list) or _kind(found) not in ("number", "nothing"):
        raise ValueError("sums are of numbers only")
    return found
