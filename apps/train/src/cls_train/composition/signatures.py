"""Parameters of classes and functions, read from their source or from the imported object."""

import ast
import functools
import inspect
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from cls_train.composition.annotations import annotation_from_hint, annotation_from_source
from cls_train.composition.source_modules import (
    Definition,
    Import,
    MissingNameError,
    SourceModule,
    lookup,
)

_MODEL = "pydantic.BaseModel"
_KNOWN_BASES = frozenset({"object", "abc.ABC", "typing.Generic", "typing.Protocol", _MODEL})

_MAX_BASES = 20
"""Longest chain of base classes that is followed."""

_IGNORED_FIELDS = frozenset({"model_config"})


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter.

    Attributes:
        annotation: A type for pydantic; `typing.Any` if unknown.
        is_required: Whether there is no default.
        allows_none: Whether the default is None, whatever the annotation says.
    """

    annotation: Any
    is_required: bool
    allows_none: bool = False


@dataclass(frozen=True, slots=True)
class Signature:
    """The keyword arguments of a class or function.

    Attributes:
        parameters: By name, in order.
        accepts_any: Whether other names are accepted, too.
        is_model: Whether this is a pydantic model, which also converts values such as `"3"`.
    """

    parameters: Mapping[str, Parameter] = field(default_factory=dict)
    accepts_any: bool = False
    is_model: bool = False


@functools.lru_cache(maxsize=256)
def inspect_signature(target: Callable[..., Any]) -> Signature:
    """Return the parameters of an imported class or function."""
    is_model = inspect.isclass(target) and hasattr(target, "model_fields")
    try:
        hints = typing.get_type_hints(
            target.__init__ if inspect.isclass(target) else target, include_extras=True
        )
    except (NameError, TypeError, AttributeError, SyntaxError):
        hints = {}

    parameters = {}
    accepts_any = False
    for parameter in inspect.signature(target).parameters.values():
        if parameter.kind is parameter.VAR_KEYWORD:
            accepts_any = True
        elif parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            annotation = Any if is_model else annotation_from_hint(hints.get(parameter.name, Any))
            parameters[parameter.name] = Parameter(
                annotation,
                is_required=parameter.default is parameter.empty,
                allows_none=parameter.default is None,
            )
    return Signature(parameters, accepts_any, is_model)


@functools.cache  # the runs of a sweep have the same classes
def read_signature(definition: Definition) -> Signature | None:
    """Return the parameters of a class or function from its source; None if they are unknown."""
    node = definition.node
    if isinstance(node, ast.FunctionDef):
        if node.decorator_list:
            return None  # a decorator may change the parameters
        return _read_function(node, definition.module, is_method=False)
    if isinstance(node, ast.ClassDef):
        return _read_class(definition)
    return None


def is_model(definition: Definition) -> bool | None:
    """Whether a class is a pydantic model; None if its bases are unknown."""
    bases = _list_bases(definition)
    return None if bases is None else _MODEL in bases


def _read_class(definition: Definition) -> Signature | None:
    bases = _list_bases(definition)
    if bases is None:
        return None
    if _MODEL in bases:
        return _read_model([base for base in bases if isinstance(base, Definition)])

    for base in bases:
        if not isinstance(base, Definition):
            continue
        assert isinstance(base.node, ast.ClassDef)
        if _is_dataclass(base.node):
            return _read_dataclass([each for each in bases if isinstance(each, Definition)])
        for statement in reversed(base.node.body):
            if isinstance(statement, ast.FunctionDef) and statement.name == "__init__":
                return _read_function(statement, base.module, is_method=True)
    return Signature()


def _list_bases(definition: Definition, depth: int = 0) -> "list[Definition | str] | None":
    """Return the class and its bases, the nearest first; None if one is unknown."""
    node = definition.node
    assert isinstance(node, ast.ClassDef)
    decorators = [ast.unparse(decorator) for decorator in node.decorator_list]
    metaclasses = [ast.unparse(keyword.value) for keyword in node.keywords]
    is_plain = all("dataclass" in each for each in decorators)
    is_plain = is_plain and all(each.endswith("ABCMeta") for each in metaclasses)
    if not is_plain or depth > _MAX_BASES:
        return None

    found: list[Definition | str] = [definition]
    for base in node.bases:
        base_node = base.value if isinstance(base, ast.Subscript) else base  # Generic[T]
        name = _qualified_name(base_node, definition.module)
        if name in _KNOWN_BASES:
            found.append(name)
            continue
        base_definition = _find_class(base_node, definition.module)
        if base_definition is None:
            return None
        more = _list_bases(base_definition, depth + 1)
        if more is None:
            return None
        found += more
    return found


def _read_model(bases: list[Definition]) -> Signature | None:
    """Return the fields of a pydantic model, those of its bases first."""
    parameters: dict[str, Parameter] = {}
    accepts_any = True
    fills_fields = False
    for base in reversed(bases):
        assert isinstance(base.node, ast.ClassDef)
        for statement in base.node.body:
            if isinstance(statement, ast.Assign):
                accepts_any = accepts_any and not _forbids_extra(statement)
            elif isinstance(statement, ast.FunctionDef):
                fills_fields = fills_fields or _runs_before_validation(statement)
            elif isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
                name = statement.target.id
                text = ast.unparse(statement.annotation)
                if "ClassVar" in text or name.startswith("_") or name in _IGNORED_FIELDS:
                    continue
                annotation = annotation_from_source(statement.annotation, base.module, lax=True)
                parameters[name] = Parameter(annotation, is_required=statement.value is None)
    if fills_fields:
        optional = {}
        for name, parameter in parameters.items():
            optional[name] = Parameter(parameter.annotation, is_required=False)
        parameters = optional
    return Signature(parameters, accepts_any, is_model=True)


def _read_dataclass(bases: list[Definition]) -> Signature | None:
    """Return the fields of a dataclass, those of its bases first."""
    parameters = {}
    for base in reversed(bases):
        assert isinstance(base.node, ast.ClassDef)
        if not _is_dataclass(base.node):
            return None
        for statement in base.node.body:
            if not isinstance(statement, ast.AnnAssign):
                continue
            text = ast.unparse(statement)
            if "ClassVar" in text:
                continue
            if "InitVar" in text or "init=False" in text or "KW_ONLY" in text:
                return None
            annotation = annotation_from_source(statement.annotation, base.module, lax=False)
            default = statement.value
            is_none = isinstance(default, ast.Constant) and default.value is None
            is_bare_field = "field(" in text and "default" not in text
            parameters[ast.unparse(statement.target)] = Parameter(
                annotation, is_required=default is None or is_bare_field, allows_none=is_none
            )
    return Signature(parameters)


def _forbids_extra(statement: ast.Assign) -> bool:
    text = ast.unparse(statement)
    return text.startswith("model_config") and "extra='forbid'" in text


def _runs_before_validation(method: ast.FunctionDef) -> bool:
    decorators = [ast.unparse(decorator) for decorator in method.decorator_list]
    return any("mode='before'" in text or "mode='wrap'" in text for text in decorators)


def _read_function(
    node: ast.FunctionDef, module: SourceModule, *, is_method: bool
) -> Signature | None:
    arguments = node.args
    positional = [*arguments.posonlyargs, *arguments.args]
    missing = len(positional) - len(arguments.defaults)
    defaults: list[ast.expr | None] = [*[None] * missing, *arguments.defaults]
    pairs = list(zip(positional, defaults, strict=True))[int(is_method) :]
    pairs += list(zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True))

    parameters = {}
    positional_only = {argument.arg for argument in arguments.posonlyargs}
    for argument, default in pairs:
        if argument.arg in positional_only:
            continue
        annotation = Any
        if argument.annotation is not None:
            annotation = annotation_from_source(argument.annotation, module, lax=False)
        is_none = isinstance(default, ast.Constant) and default.value is None
        parameters[argument.arg] = Parameter(
            annotation, is_required=default is None, allows_none=is_none
        )
    return Signature(parameters, accepts_any=arguments.kwarg is not None)


def _is_dataclass(node: ast.ClassDef) -> bool:
    return any("dataclass" in ast.unparse(decorator) for decorator in node.decorator_list)


def _qualified_name(node: ast.expr, module: SourceModule) -> str:
    """Return `pydantic.BaseModel` for a name that was imported from pydantic."""
    text = ast.unparse(node)
    first, _, rest = text.partition(".")
    binding = module.bindings.get(first)
    if not isinstance(binding, Import):
        return text
    parts = [binding.module, binding.name, rest]
    return ".".join(part for part in parts if part)


def _find_class(node: ast.expr, module: SourceModule) -> Definition | None:
    found: Definition | SourceModule | None = module
    for name in ast.unparse(node).split("."):
        if not isinstance(found, SourceModule):
            return None
        try:
            found = lookup(found, name)
        except MissingNameError:
            return None
    if isinstance(found, Definition) and isinstance(found.node, ast.ClassDef):
        return found
    return None
