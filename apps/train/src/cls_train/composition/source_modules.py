"""Find classes and functions in the source files of packages, without importing them.

Importing PyTorch and Lightning takes seconds, and a misspelled setting should be reported before.
What this reader does not understand is unknown, never wrong: the check after the import decides.
"""

import ast
import functools
import importlib.util
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

Scope = ast.ClassDef | ast.FunctionDef

_MAX_DEPTH = 20
"""Longest chain of imports that is followed."""


class MissingNameError(Exception):
    """A module has no such name.

    Args:
        container: Dotted name of the module.
        name: The missing name.
        valid: Public names of the module.
    """

    def __init__(self, container: str, name: str, valid: Iterable[str]) -> None:
        super().__init__(f"{container} has no {name!r}")
        self.container = container
        self.name = name
        self.valid = frozenset(valid)


@dataclass(slots=True, eq=False)  # each module is read once
class SourceModule:
    """The names that a module binds at its top level.

    Attributes:
        name: Dotted name.
        is_package: Whether the file is an `__init__.py`.
        bindings: Definitions, assigned values, and imports, by name.
        star_imports: Modules whose public names are all imported.
    """

    name: str
    is_package: bool
    bindings: "dict[str, Scope | ast.expr | Import]" = field(default_factory=dict)
    star_imports: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Import:
    """`import module` or, with a name, `from module import name`."""

    module: str
    name: str | None


@dataclass(frozen=True, slots=True)
class Definition:
    """A class, a function, or an assigned value, and the module that holds it."""

    module: SourceModule
    node: Scope | ast.expr


def find_definition(target: str) -> Definition | None:
    """Return what a dotted name stands for; None if that cannot be read.

    Raises:
        MissingNameError: A module has no such name.
    """
    names = target.split(".")
    module: SourceModule | None = None
    length = len(names)
    while module is None and length > 1:
        length -= 1
        module = load_module(".".join(names[:length]))

    for index in range(length, len(names)):
        if module is None:
            return None
        found = lookup(module, names[index])
        if not isinstance(found, SourceModule):
            is_last = index == len(names) - 1
            return found if is_last else None
        module = found
    return None


def lookup(module: SourceModule, name: str, depth: int = 0) -> Definition | SourceModule | None:
    """Return what a name means in a module; None if that cannot be read.

    Raises:
        MissingNameError: The module has no such name.
    """
    if depth > _MAX_DEPTH:
        return None
    binding = module.bindings.get(name)
    if binding == Import(module.name, name):  # `from . import name`, a submodule
        return load_module(f"{module.name}.{name}")
    if isinstance(binding, Import):
        return _follow(binding, depth)
    if binding is not None:
        return Definition(module, binding)

    submodule = load_module(f"{module.name}.{name}")
    if submodule is not None:
        return submodule

    is_complete = "__getattr__" not in module.bindings
    for source_name in module.star_imports:
        source = load_module(source_name)
        if source is None:
            is_complete = False
            continue
        try:
            return lookup(source, name, depth + 1)
        except MissingNameError:
            continue
    if not is_complete and "TYPE_CHECKING" not in module.bindings:
        return None
    raise MissingNameError(module.name, name, list_public_names(module))


def list_public_names(module: SourceModule) -> set[str]:
    """Return `__all__`, or the classes and functions of the module and of its own package."""
    declared = module.bindings.get("__all__")
    if isinstance(declared, (ast.List, ast.Tuple)):
        values = [item.value for item in declared.elts if isinstance(item, ast.Constant)]
        return {str(value) for value in values}

    package, _, _ = module.name.partition(".")
    names = set()
    for name, binding in module.bindings.items():
        is_own_import = isinstance(binding, Import) and binding.module.startswith(f"{package}.")
        if is_own_import or isinstance(binding, Scope):
            names.add(name)
    for source_name in module.star_imports:
        source = load_module(source_name)
        if source is not None:
            names |= list_public_names(source)
    return {name for name in names if not name.startswith("_")}


@functools.cache
def load_module(name: str) -> SourceModule | None:
    """Read the source of a module; None if there is none, or it cannot be parsed."""
    path = _find_file(name)
    if path is None:
        return None
    try:
        tree = ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError, RecursionError):
        return None

    module = SourceModule(name, is_package=path.name == "__init__.py")
    for statement in _iterate_statements(tree.body):
        _bind(statement, module)
    return module


def resolve_import_source(module: SourceModule, node: ast.ImportFrom) -> str:
    """Return the absolute name of the module that a `from` statement names."""
    if node.level == 0:
        return node.module or ""
    parts = module.name.split(".")
    num_dropped = node.level - int(module.is_package)
    parents = parts[: len(parts) - num_dropped]
    if node.module:
        parents.append(node.module)
    return ".".join(parents)


def _follow(binding: Import, depth: int) -> Definition | SourceModule | None:
    if binding.module == "torch" and binding.name is not None:
        submodule = load_module(f"torch.{binding.name}")
        if submodule is not None:
            return submodule  # reading all of torch/__init__.py would take longer than the rest
    module = load_module(binding.module)
    if module is None or binding.name is None:
        return module
    try:
        return lookup(module, binding.name, depth + 1)
    except MissingNameError:
        return None  # the import works, so the name is bound in a way that is not understood


@functools.cache
def _find_file(name: str) -> Path | None:
    """Return the source file of a module without importing its parents."""
    top, *rest = name.split(".")
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError, AttributeError):
        return None
    if spec is None:
        return None
    if not rest:
        return _python_file(spec.origin)

    folders = [Path(folder) for folder in spec.submodule_search_locations or ()]
    for part in rest[:-1]:
        folders = [folder / part for folder in folders if (folder / part).is_dir()]
    for folder in folders:
        for candidate in (folder / rest[-1] / "__init__.py", folder / f"{rest[-1]}.py"):
            if candidate.is_file():
                return candidate
    return None


def _python_file(origin: str | None) -> Path | None:
    return Path(origin) if origin is not None and origin.endswith(".py") else None


def _iterate_statements(body: Iterable[ast.stmt]) -> Iterator[ast.stmt]:
    """Yield the statements of a module, also those in `if`, `try`, and `with` blocks."""
    for statement in body:
        if isinstance(statement, ast.If):
            yield from _iterate_statements(statement.orelse)
            yield from _iterate_statements(statement.body)
        elif isinstance(statement, ast.Try):
            for handler in statement.handlers:
                yield from _iterate_statements(handler.body)
            yield from _iterate_statements(statement.body)
            yield from _iterate_statements(statement.orelse)
        elif isinstance(statement, ast.With):
            yield from _iterate_statements(statement.body)
        else:
            yield statement


def _bind(statement: ast.stmt, module: SourceModule) -> None:
    if isinstance(statement, Scope):
        module.bindings[statement.name] = statement
    elif isinstance(statement, ast.Assign):
        for target in statement.targets:
            if isinstance(target, ast.Name):
                module.bindings[target.id] = statement.value
    elif isinstance(statement, ast.AnnAssign):
        if isinstance(statement.target, ast.Name) and statement.value is not None:
            module.bindings[statement.target.id] = statement.value
    elif isinstance(statement, ast.Import):
        for alias in statement.names:
            first, _, _ = alias.name.partition(".")
            name = alias.name if alias.asname else first
            module.bindings[alias.asname or first] = Import(name, None)
    elif isinstance(statement, ast.ImportFrom):
        source = resolve_import_source(module, statement)
        for alias in statement.names:
            if alias.name == "*":
                module.star_imports.append(source)
            else:
                module.bindings[alias.asname or alias.name] = Import(source, alias.name)
