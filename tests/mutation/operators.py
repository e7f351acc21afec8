"""Bugs as programs: every small mistake that can be planted in a function, by its syntax tree.

a * b -> a, b        a / b, a // b -> a   a dropped factor
a ** b -> a                               std for variance
a + b -> a, b, a - b                      a lost term, a flipped sign
-a    -> a                                a flipped sign
A.T   -> A                                a transpose
a.sum(axis=0) -> a[0]; mean -> sum        a lost sum over the batch
a > b -> a < b, a >= b                    the wrong side
a & b -> a, b        ~a, not a -> a       a lost condition
max(a, b) -> a, b    the same for min     a lost bound
2 -> 3, 0 -> 1                            off by one, std for variance
"relu" -> "tanh"                          another activation's derivative
x += y -> x = y; x[...] = 0 dropped       a stale or overwritten buffer
accumulate -> not accumulate              the same
return a, b -> b, a                       gradients in the wrong order
f(a, b) -> f(b, a)                        arguments in the wrong order

Left alone, because nobody could tell or anybody would: the order of the arguments of a bound, product, sum or ==, of
the axes to sum over and of the types to be one of, which is the same either way, and of the arguments of `isinstance`
and `zip`, which only breaks off; the -1 of a `reshape`, where NumPy takes any number below zero; what a kernel tells
`share` of its cost, which decides who does the work and not what comes out; an error's text, and the check that raises
it.
"""

from __future__ import annotations

import ast
import copy
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

__all__ = ["Mutant", "mutants"]

ACTIVATIONS = ["relu", "tanh", "elu", "sigmoid", "linear"]
FLAGS = {"accumulate", "need", "nesterov", "need_dx"}
BOUNDS = {"max", "min", "maximum", "minimum", "fmax", "fmin"}
SWAPPED_IN_VAIN = BOUNDS | {"isinstance", "zip", "multiply", "logaddexp", "array_equal"}
COMPARISONS: dict[type[ast.cmpop], list[type[ast.cmpop]]] = {
    ast.Gt: [ast.Lt, ast.GtE],
    ast.GtE: [ast.LtE, ast.Gt],
    ast.Lt: [ast.Gt, ast.LtE],
    ast.LtE: [ast.GtE, ast.Lt],
    ast.Eq: [ast.NotEq],
}


@dataclass(frozen=True)
class Mutant:
    """One planted bug: where, what the line said, what it says now, and what to exchange in the whole module.

    place: 1 for the first line of its function that says the same, 2 for the second.
    """

    module: str
    function: str
    line: int
    before: str
    after: str
    place: int
    replace: _Replace
    module_tree: ast.Module

    def source(self) -> str:
        """The whole module with the bug in it."""
        return ast.unparse(self.replace.apply(self.module_tree))

    @property
    def key(self) -> str:
        """What names this bug for good, whatever lines are added above it."""
        again = f" (place {self.place})" if self.place > 1 else ""
        return f"{self.module}:{self.function}: {self.before} -> {self.after}{again}"


def mutants(module: str, source: str) -> Iterator[Mutant]:
    """Every bug that can be planted in `source`, each once."""
    tree = ast.parse(source)
    for name, function in _functions(tree):
        places: Counter[str] = Counter()
        for statement in _statements(function):
            before = _head(statement)
            places[before] += 1
            afters = {before}
            for replace in _in_statement(statement):
                after = _head(replace.apply(statement))
                if after not in afters:
                    afters.add(after)
                    yield Mutant(module, name, statement.lineno, before, after, places[before], replace, tree)


def _functions(tree: ast.Module) -> Iterator[tuple[str, ast.FunctionDef]]:
    """Functions and methods by dotted name; a function within a function belongs to the outer one."""

    def walk(body: list[ast.stmt], prefix: str) -> Iterator[tuple[str, ast.FunctionDef]]:
        for node in body:
            if isinstance(node, ast.FunctionDef):
                yield prefix + node.name, node
            elif isinstance(node, ast.ClassDef):
                yield from walk(node.body, f"{prefix}{node.name}.")

    yield from walk(tree.body, "")


def _statements(function: ast.FunctionDef) -> Iterator[ast.stmt]:
    """The statements whose own expressions may be wrong: no docstrings, no errors' texts, no checks that raise."""
    for node in ast.walk(function):
        if not isinstance(node, ast.stmt) or node is function or isinstance(node, (ast.Raise, ast.FunctionDef)):
            continue
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            continue
        if isinstance(node, ast.If) and any(isinstance(inner, ast.Raise) for inner in node.body):
            continue
        yield node


def _in_statement(statement: ast.stmt) -> Iterator[_Replace]:
    """Each replacement of the statement or of an expression that is its own (not of a nested statement)."""
    for node, replacement in _replacements(statement):
        yield _Replace(node, replacement)


def _head(statement: ast.AST) -> str:
    """The text of a statement; of a compound one only its first line."""
    text = ast.unparse(statement)
    return text.splitlines()[0] if isinstance(statement, (ast.For, ast.If, ast.While, ast.With)) else text


class _Replace:
    """A copy of a tree in which one node is another."""

    def __init__(self, target: ast.AST, replacement: ast.AST) -> None:
        self.target, self.replacement = target, replacement

    def apply(self, node: ast.AST) -> Any:
        if node is self.target:
            return self.replacement
        node = copy.copy(node)
        for name, value in ast.iter_fields(node):
            if isinstance(value, ast.AST):
                setattr(node, name, self.apply(value))
            elif isinstance(value, list):
                setattr(node, name, [self.apply(v) if isinstance(v, ast.AST) else v for v in value])
        return node


def _own_expressions(statement: ast.stmt) -> Iterator[ast.expr]:
    """All expressions of a statement, without those of statements nested in it and without annotations."""
    for name, value in ast.iter_fields(statement):
        if name in ("body", "orelse", "finalbody", "handlers", "annotation", "returns"):
            continue
        for child in value if isinstance(value, list) else [value]:
            expression = child.context_expr if isinstance(child, ast.withitem) else child
            if isinstance(expression, ast.expr):
                yield from (node for node in ast.walk(expression) if isinstance(node, ast.expr))


def _replacements(statement: ast.stmt) -> Iterator[tuple[ast.AST, ast.AST]]:
    if isinstance(statement, ast.AugAssign):
        yield statement, ast.Assign([_store(statement.target)], statement.value, lineno=statement.lineno)
        flipped = {ast.Add: ast.Sub, ast.Sub: ast.Add}.get(type(statement.op))
        if flipped:
            yield statement, ast.AugAssign(statement.target, flipped(), statement.value)
    if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Subscript):
        yield statement, ast.Pass()
    expressions = list(_own_expressions(statement))
    calls = [node for node in expressions if isinstance(node, ast.Call)]
    axes = [keyword.value for call in calls for keyword in call.keywords if keyword.arg == "axis"]
    spared: list[ast.AST] = [axis for axis in axes if not isinstance(axis, ast.Constant)]
    spared += [call.args[1] for call in calls if _name(call) == "isinstance"]
    spared += [node for call in calls if _name(call) == "share" for cost in call.args[2:] for node in ast.walk(cost)]
    shapes = [argument for call in calls if _name(call) == "reshape" for argument in call.args]
    sizes = [size for shape in shapes for size in ast.walk(shape)]
    spared += [size.operand for size in sizes if isinstance(size, ast.UnaryOp) and isinstance(size.op, ast.USub)]
    for node in expressions:
        if node in spared:
            continue
        for replacement in _of_expression(node):
            yield node, replacement


def _store(target: ast.expr) -> ast.expr:
    target = copy.copy(target)
    target.ctx = ast.Store()  # type: ignore[attr-defined]
    return target


def _name(call: ast.Call) -> str:
    """The last name of what is called."""
    return call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")


def _of_expression(node: ast.expr) -> Iterator[ast.expr]:
    if isinstance(node, ast.BinOp):
        if isinstance(node.op, ast.Mult):
            yield from (node.left, node.right)
        elif isinstance(node.op, (ast.Div, ast.FloorDiv, ast.Pow)):
            yield node.left
        elif isinstance(node.op, (ast.BitAnd, ast.BitOr)):
            yield from (node.left, node.right)
        elif isinstance(node.op, (ast.Add, ast.Sub)):
            yield from (node.left, node.right)
            yield ast.BinOp(node.left, ast.Sub() if isinstance(node.op, ast.Add) else ast.Add(), node.right)
        elif isinstance(node.op, ast.MatMult):
            yield ast.BinOp(node.right, ast.MatMult(), node.left)
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.USub, ast.Invert, ast.Not)):
        yield node.operand
    elif isinstance(node, ast.Attribute) and node.attr == "T":
        yield node.value
    elif isinstance(node, ast.Compare) and len(node.ops) == 1:
        for operator in COMPARISONS.get(type(node.ops[0]), []):
            yield ast.Compare(node.left, [operator()], node.comparators)
    elif isinstance(node, ast.Constant):
        if isinstance(node.value, (int, float)) and not isinstance(node.value, bool):
            yield ast.Constant(node.value + 1)
        elif node.value in ACTIVATIONS:
            yield ast.Constant(ACTIVATIONS[(ACTIVATIONS.index(node.value) + 1) % len(ACTIVATIONS)])
    elif isinstance(node, ast.Name) and node.id in FLAGS and isinstance(node.ctx, ast.Load):
        yield ast.UnaryOp(ast.Not(), node)
    elif isinstance(node, ast.Tuple) and len(node.elts) == 2 and isinstance(node.ctx, ast.Load):
        yield ast.Tuple(node.elts[::-1], node.ctx)
    elif isinstance(node, ast.Call):
        if isinstance(node.func, ast.Attribute) and node.func.attr in ("sum", "mean") and node.keywords:
            if node.keywords[0].arg == "axis" and isinstance(node.keywords[0].value, ast.Constant):
                row = ast.Tuple([ast.Slice(), ast.Constant(0)], ast.Load())
                first = ast.Constant(0) if node.keywords[0].value.value == 0 else row
                yield ast.Subscript(node.func.value, first, ast.Load())
            other = "sum" if node.func.attr == "mean" else "mean"
            yield ast.Call(ast.Attribute(node.func.value, other, ast.Load()), node.args, node.keywords)
        called = _name(node)
        if called in BOUNDS and len(node.args) == 2:
            yield from node.args
        constant = any(isinstance(argument, ast.Constant) for argument in node.args)
        if len(node.args) == 2 and not constant and called not in SWAPPED_IN_VAIN:
            yield ast.Call(node.func, node.args[::-1], node.keywords)
    elif isinstance(node, ast.IfExp):
        yield from (node.body, node.orelse)
