"""The catalogue of messages: every text that the program shows its users, found in its source.

    python -m tests.helpers.messages

writes it to tests/messages.txt; so does `make messages`. tests/test_messages.py compares it with the source.

A message is an argument of an exception, a text for the log, or a flag's help. The argument may be a literal, an
f-string (a template with `{…}` for each expression), a variable that the same function assigns, or a parameter: then
the texts are those that callers pass for it.
"""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SNAPSHOT = ROOT / "tests/messages.txt"
HOLE = "{…}"
BUILT_IN_ERRORS = {"ValueError", "TypeError", "ArgumentTypeError"}
DETECTOR_ERROR = "DetectorError"
LOG_LEVELS = {"info", "warning", "error"}


@dataclass(frozen=True, order=True)
class Message:
    """A text with the file that holds it, and its kind, such as `ConfigError.fix`, `log.info` or `help`."""

    path: str
    kind: str
    template: str

    def __str__(self) -> str:
        return f"{self.path} :: {self.kind} :: {self.template}"


@dataclass(frozen=True)
class Argument:
    """Where a call takes a message: by position, by keyword, or either."""

    kind: str
    position: int | None
    keyword: str | None

    def expression(self, call: ast.Call) -> ast.expr | None:
        """Return what a call passes for it."""
        for keyword in call.keywords:
            if keyword.arg == self.keyword:
                return keyword.value
        if self.position is None or self.position >= len(call.args):
            return None
        value = call.args[self.position]
        return None if isinstance(value, ast.Starred) else value


Function = ast.FunctionDef | ast.AsyncFunctionDef


def source_files(root: Path = ROOT) -> dict[str, ast.Module]:
    """Return the syntax trees of the program by path: scripts, models and utils."""
    files = [*root.glob("*.py"), *(root / "models").rglob("*.py"), *(root / "utils").rglob("*.py")]
    return {file.relative_to(root).as_posix(): ast.parse(file.read_text(encoding="utf-8")) for file in files}


def find_messages(files: dict[str, ast.Module]) -> list[Message]:
    """Return the messages of the files, sorted and without duplicates."""
    errors = _error_arguments(files)
    functions = {path: _functions(path, tree, files) for path, tree in files.items()}
    calls = [(path, function, call) for path, tree in files.items() for function, call in _calls(tree, None)]
    passed_on: dict[tuple[str, str], set[Argument]] = {}  # by path and name of functions that take messages
    messages: set[Message] = set()
    known = -1
    while known != sum(map(len, passed_on.values())):  # until no further function is found
        known = sum(map(len, passed_on.values()))
        for path, function, call in calls:
            name = _called(call)
            takers = errors.get(name, set()) | passed_on.get(functions[path].get(name, ("", "")), set())
            for argument in _arguments(call) | takers:
                expression = argument.expression(call)
                for part in _values(expression, function) if expression is not None else ():
                    parameter = _parameter(part, function)
                    if parameter is not None and function is not None:
                        taken = _as_argument(argument.kind, parameter, function)
                        passed_on.setdefault((path, function.name), set()).add(taken)
                    else:
                        messages.add(Message(path, argument.kind, _template(part, files[path]).strip()))
    return sorted(message for message in messages if message.template.replace(HOLE, "").strip())


def _functions(path: str, tree: ast.Module, files: dict[str, ast.Module]) -> dict[str, tuple[str, str]]:
    """Return the path and name of each function that a file defines or imports, by the name it has there."""
    names: dict[str, tuple[str, str]] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            module = f"{node.module.replace('.', '/')}.py"
            if module in files:
                names |= {alias.asname or alias.name: (module, alias.name) for alias in node.names}
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            names[node.name] = (path, node.name)
    return names


def _error_arguments(files: dict[str, ast.Module]) -> dict[str, set[Argument]]:
    """Return what the constructors of exceptions take as messages, by class name."""
    takers = {name: {Argument(name, 0, None)} for name in BUILT_IN_ERRORS}
    bases = {
        node.name: {base.id for base in node.bases if isinstance(base, ast.Name)}
        for tree in files.values()
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
    }
    detector_errors, others = {DETECTOR_ERROR}, {"Exception", *BUILT_IN_ERRORS}
    for _ in range(len(bases)):
        detector_errors |= {name for name, of in bases.items() if of & detector_errors}
        others |= {name for name, of in bases.items() if of & others} - detector_errors
    for name in others - {"Exception"}:
        takers[name] = {Argument(name, 0, None)}
    for name in detector_errors:
        positions = (("where", 0), ("what", 1), ("fix", None))
        takers[name] = {Argument(f"{name}.{field}", position, field) for field, position in positions}
    return takers


def _calls(node: ast.AST, function: Function | None) -> Iterator[tuple[Function | None, ast.Call]]:
    """Yield every call with the innermost function around it."""
    for child in ast.iter_child_nodes(node):
        inner = child if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef) else function
        if isinstance(child, ast.Call):
            yield function, child
        yield from _calls(child, inner)


def _called(call: ast.Call) -> str:
    """Return the name of the function, method or class that is called."""
    return call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")


def _arguments(call: ast.Call) -> set[Argument]:
    """Return what a call of the log or of a command-line parser takes as messages."""
    name, owner = _called(call), getattr(call.func, "value", None)
    if isinstance(owner, ast.Name) and owner.id == "LOGGER" and name in LOG_LEVELS:
        return {Argument(f"log.{name}", 0, None)}
    if name in ("option", "add_argument"):
        return {Argument("help", 1, "text") if name == "option" else Argument("help", None, "help")}
    if name in ("parse_options", "build_parser", "OneLineParser"):
        return {Argument("description", None, "description")}
    return set()


def _values(expression: ast.expr, function: Function | None) -> Iterator[ast.expr]:
    """Yield the expressions that may be the value: branches of a condition, and what a local variable is assigned."""
    if isinstance(expression, ast.IfExp):
        yield from _values(expression.body, function)
        yield from _values(expression.orelse, function)
    elif isinstance(expression, ast.BoolOp):
        for value in expression.values:
            yield from _values(value, function)
    elif isinstance(expression, ast.Name) and function is not None and (found := _assigned(expression.id, function)):
        for value in found:
            yield from _values(value, function)
    else:
        yield expression


def _assigned(name: str, function: Function) -> list[ast.expr]:
    """Return the expressions that a function assigns to a variable, without those that use it themselves."""
    found = []
    for node in ast.walk(function):
        if isinstance(node, ast.Assign):
            pairs = [(target, node.value) for target in node.targets]
        elif isinstance(node, ast.AnnAssign | ast.NamedExpr) and node.value is not None:
            pairs = [(node.target, node.value)]
        else:
            continue
        for target, value in pairs:
            if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple):
                pairs += zip(target.elts, value.elts, strict=False)
            elif isinstance(target, ast.Name) and target.id == name and not _uses(value, name):
                found.append(value)
    return found


def _uses(expression: ast.expr, name: str) -> bool:
    return any(isinstance(node, ast.Name) and node.id == name for node in ast.walk(expression))


def _parameter(expression: ast.expr, function: Function | None) -> str | None:
    """Return the name of a parameter of the function that is passed on unchanged."""
    if function is None or not isinstance(expression, ast.Name):
        return None
    parameters = function.args
    names = [parameter.arg for parameter in (*parameters.posonlyargs, *parameters.args, *parameters.kwonlyargs)]
    return expression.id if expression.id in names else None


def _as_argument(kind: str, parameter: str, function: Function) -> Argument:
    """Return how callers pass a parameter."""
    positional = [p.arg for p in (*function.args.posonlyargs, *function.args.args)]
    if positional[:1] in (["self"], ["cls"]):
        positional = positional[1:]
    return Argument(kind, positional.index(parameter) if parameter in positional else None, parameter)


def _template(expression: ast.expr, module: ast.Module) -> str:
    """Return a text with `{…}` for whatever is not literal, on one line."""
    if isinstance(expression, ast.Constant):
        text = expression.value if isinstance(expression.value, str) else HOLE
    elif isinstance(expression, ast.JoinedStr):
        text = "".join(_template(v, module) if isinstance(v, ast.Constant) else HOLE for v in expression.values)
    elif isinstance(expression, ast.BinOp) and isinstance(expression.op, ast.Add):
        text = _template(expression.left, module) + _template(expression.right, module)
    elif isinstance(expression, ast.Name) and expression.id == "__doc__":
        text = (ast.get_docstring(module) or HOLE).split("\n\n")[0]
    else:
        text = HOLE
    return text.replace("\n", " ")


def main() -> None:
    """Write the catalogue."""
    lines = [f"{message}\n" for message in find_messages(source_files())]
    SNAPSHOT.write_text("".join(lines), encoding="utf-8")
    print(f"{len(lines)} messages: {SNAPSHOT.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
