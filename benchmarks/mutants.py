"""The mutants of a module: copies of its code with one small fault each."""

import ast
import copy
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
# The arguments of these calls are texts for people, which are not mutated.
_TEXTS = {"say", "print", "PipelineError", "warning", "track", "hint"}
_OPERATORS: dict[type[ast.AST], type[ast.AST]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
    ast.And: ast.Or, ast.Or: ast.And,
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult, ast.Pow: ast.Mult, ast.BitOr: ast.BitAnd, ast.BitAnd: ast.BitOr,
}  # fmt: skip
_NAMES = {"min": "max", "max": "min", "any": "all", "all": "any", "argmin": "argmax", "argmax": "argmin"}


@dataclass(frozen=True)
class Mutant:
    """A module with one fault."""

    module: str
    line: str  # the original code of the line
    before: str  # the part of it that is changed
    after: str
    source: str
    which: int  # number among the mutants of the module that look alike, from top to bottom

    @property
    def row(self) -> str:
        """The cells of the mutant in the table of the page."""
        cells = (f"`{self.module}`", f"`{self.line}`", f"`{self.before}` → `{self.after}`")
        which = f" ({self.which})" if self.which > 1 else ""
        return " | ".join(cell.replace("|", r"\|") for cell in cells) + which


def mutants(module: str) -> Iterator[Mutant]:
    """Yield every mutant of a module, from top to bottom."""
    text = (REPOSITORY / "src" / "pipeline" / f"{module}.py").read_text(encoding="utf-8")
    tree, lines = ast.parse(text), text.splitlines()
    number, alike = 0, Counter[tuple[str, str, str]]()
    while True:
        mutated = copy.deepcopy(tree)
        mutation = _Mutation(number)
        mutation.visit(mutated)
        if mutation.found is None:
            return
        line, before, after = mutation.found
        code = lines[line - 1].partition("  #")[0].strip()
        alike[code, before, after] += 1
        source = ast.unparse(ast.fix_missing_locations(mutated))
        yield Mutant(module, code, before, after, source, alike[code, before, after])
        number += 1


class _Mutation(ast.NodeTransformer):
    """Make the change with the given number; `found` is its line, and the code before and after."""

    def __init__(self, number: int) -> None:
        self._left = number
        self.found: tuple[int, str, str] | None = None

    def visit(self, node: ast.AST) -> ast.AST:
        if self.found or self._is_ignored(node):
            return node
        for mutated in _mutations(node):
            if self._left == 0:
                shown = (" ".join(ast.unparse(tree).split())[:90] for tree in (node, mutated))
                self.found = (getattr(node, "lineno", 0), *shown)
                return ast.copy_location(mutated, node)
            self._left -= 1
        return self.generic_visit(node)

    def _is_ignored(self, node: ast.AST) -> bool:
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            return True
        if isinstance(node, ast.Call):
            return ast.unparse(node.func).rpartition(".")[2] in _TEXTS
        return isinstance(node, ast.JoinedStr | ast.Import | ast.ImportFrom)

    def generic_visit(self, node: ast.AST) -> ast.AST:
        # Type hints have no effect, and neither do the decorators in these modules.
        for part in ("annotation", "returns", "decorator_list"):
            if hasattr(node, part):
                kept = getattr(node, part)
                setattr(node, part, [] if isinstance(kept, list) else None)
                super().generic_visit(node)
                setattr(node, part, kept)
                return node
        return super().generic_visit(node)


def _mutations(node: ast.AST) -> Iterator[ast.AST]:
    match node:
        case ast.Compare(ops=[operator, *_]) if type(operator) in _OPERATORS:
            yield _with(node, ops=[_OPERATORS[type(operator)](), *node.ops[1:]])
        case ast.BinOp(op=operator) | ast.BoolOp(op=operator) | ast.AugAssign(op=operator) if (
            type(operator) in _OPERATORS
        ):
            yield _with(node, op=_OPERATORS[type(operator)]())
        case ast.UnaryOp(op=ast.Not() | ast.USub(), operand=operand):
            yield operand
        case ast.Constant(value=bool(value)):
            yield ast.Constant(not value)
        case ast.Constant(value=int(value) | float(value)):
            yield ast.Constant(value + 1)
        case ast.If(test=test) | ast.IfExp(test=test) if not isinstance(test, ast.Compare | ast.UnaryOp):
            yield _with(node, test=ast.UnaryOp(ast.Not(), test))
        case ast.Raise() | ast.Break() | ast.Continue():
            yield ast.Pass()
        case ast.Expr(value=ast.Call(func=function)):
            if ast.unparse(function).rpartition(".")[2] not in _TEXTS:
                yield ast.Pass()
        case ast.Assign(targets=[ast.Attribute() | ast.Subscript()]):
            yield ast.Pass()
        case ast.Name(id=name) if name in _NAMES:
            yield _with(node, id=_NAMES[name])
        case ast.Attribute(attr=name) if name in _NAMES:
            yield _with(node, attr=_NAMES[name])


def _with(node: ast.AST, **parts: object) -> ast.AST:
    changed = copy.copy(node)
    for name, value in parts.items():
        setattr(changed, name, value)
    return changed
