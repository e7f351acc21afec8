"""Bugs as programs: every small mistake that can be planted in a function, by its syntax tree.

a * b -> a, b        a / b -> a           a dropped factor
a + b -> a, b, a - b                      a lost term, a flipped sign
-a    -> a                                a flipped sign
A.T   -> A                                a transpose
a.sum(axis=0) -> a[0]; mean -> sum        a lost sum over the batch
a > b -> a < b, a >= b                    the wrong side
2 -> 3, 0 -> 1                            off by one, std for variance
"relu" -> "tanh"                          another activation's derivative
x += y -> x = y; x[...] = 0 dropped       a stale or overwritten buffer
accumulate -> not accumulate              the same
return a, b -> b, a                       gradients in the wrong order
f(a, b) -> f(b, a)                        arguments in the wrong order
"""

from __future__ import annotations

import ast
import copy
from collections.abc import Iterator
from dataclasses import dataclass

__all__ = ["Mutant", "mutants"]

ACTIVATIONS = ["relu", "tanh", "elu", "sigmoid", "linear"]
FLAGS = {"accumulate", "need", "nesterov", "need_dx"}
COMPARISONS: dict[type[ast.cmpop], list[type[ast.cmpop]]] = {
    ast.Gt: [ast.Lt, ast.GtE],
    ast.GtE: [ast.LtE, ast.Gt],
    ast.Lt: [ast.Gt, ast.LtE],
    ast.LtE: [ast.GtE, ast.Lt],
    ast.Eq: [ast.NotEq],
}


@dataclass(frozen=True)
class Mutant:
    """One planted bug: where, what the line said, what it says now, and the whole module's new source."""

    module: str
    function: str
    line: int
    before: str
    after: str
    source: str

    @property
    def key(self) -> str:
        """What names this bug for good, whatever lines are added above it."""
        return f"{self.module}:{self.function}: {self.before} -> {self.after}"


def mutants(module: str, source: str, functions: set[str] | None = None) -> Iterator[Mutant]:
    """Every bug that can be planted in `source`, in the named functions (dotted names) or in all."""
    tree = ast.parse(source)
    for name, function in _functions(tree):
        if functions is not None and name not in functions:
            continue
        for statement in _statements(function):
            yield from _in_statement(module, name, tree, statement)


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


def _in_statement(module: str, function: str, tree: ast.Module, statement: ast.stmt) -> Iterator[Mutant]:
    """Each replacement of the statement or of an expression that is its own (not of a nested statement)."""
    for node, replacement in _replacements(statement):
        before = _head(statement)
        fresh = _Replace(node, replacement)
        mutated = fresh.apply(tree)
        after = _head(fresh.apply(statement))
        yield Mutant(module, function, statement.lineno, before, after, ast.unparse(mutated))


def _head(statement: ast.AST) -> str:
    """The text of a statement; of a compound one only its first line."""
    text = ast.unparse(statement)
    return text.splitlines()[0] if isinstance(statement, (ast.For, ast.If, ast.While, ast.With)) else text


class _Replace:
    """A copy of a tree in which one node is another; what does not lie above that node is shared."""

    def __init__(self, target: ast.AST, replacement: ast.AST) -> None:
        self.target, self.replacement = target, replacement

    def apply(self, tree: ast.AST) -> ast.AST:
        return ast.fix_missing_locations(self._copy(tree))

    def _copy(self, node: ast.AST) -> ast.AST:
        if node is self.target:
            return self.replacement
        node = copy.copy(node)
        for name, value in ast.iter_fields(node):
            if isinstance(value, ast.AST):
                setattr(node, name, self._copy(value))
            elif isinstance(value, list):
                setattr(node, name, [self._copy(v) if isinstance(v, ast.AST) else v for v in value])
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
    for node in _own_expressions(statement):
        for replacement in _of_expression(node):
            yield node, replacement


def _store(target: ast.expr) -> ast.expr:
    target = copy.copy(target)
    target.ctx = ast.Store()  # type: ignore[attr-defined]
    return target


def _of_expression(node: ast.expr) -> Iterator[ast.expr]:
    if isinstance(node, ast.BinOp):
        if isinstance(node.op, ast.Mult):
            yield from (node.left, node.right)
        elif isinstance(node.op, ast.Div):
            yield node.left
        elif isinstance(node.op, (ast.Add, ast.Sub)):
            yield from (node.left, node.right)
            yield ast.BinOp(node.left, ast.Sub() if isinstance(node.op, ast.Add) else ast.Add(), node.right)
        elif isinstance(node.op, ast.MatMult):
            yield ast.BinOp(node.right, ast.MatMult(), node.left)
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
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
        if len(node.args) == 2 and not any(isinstance(a, ast.Constant) for a in node.args):
            yield ast.Call(node.func, node.args[::-1], node.keywords)
    elif isinstance(node, ast.IfExp):
        yield from (node.body, node.orelse)
