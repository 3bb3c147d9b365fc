"""Turn annotations into types that pydantic can check, and check values of YAML files with them.

Annotations come from source files or from imported objects. What is not understood becomes `Any`.
A class that no YAML value can be an instance of becomes `Opaque`: it needs a `_target_`.
"""

import ast
import functools
import types
import typing
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal, Union

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    InstanceOf,
    PydanticUserError,
    Strict,
    TypeAdapter,
    ValidationError,
    create_model,
)

from cls_export.contract.suggestions import did_you_mean
from cls_train.composition.source_modules import (
    Definition,
    Import,
    MissingNameError,
    SourceModule,
    lookup,
)
from cls_train.composition.value_errors import describe_value_error

_MAX_DEPTH = 12
"""Aliases may refer to each other."""


class Opaque:
    """Stands for all classes whose instances only a `_target_` can build."""


_OPAQUE = InstanceOf[Opaque]
_STRICT: dict[type, Any] = {
    int: Annotated[int, Strict()],
    float: Annotated[float, Strict()],
    bool: Annotated[bool, Strict()],
    str: Annotated[str, Strict()],
}
_SCALARS = {"int": int, "float": float, "bool": bool, "str": str}
_TEXT = frozenset({"Path", "PurePath", "PathLike"})
_LISTS = frozenset(
    {"list", "List", "Sequence", "Iterable", "Collection", "set", "Set", "frozenset", "FrozenSet"}
)
_MAPPINGS = frozenset({"dict", "Dict", "Mapping", "MutableMapping"})
_OPAQUE_NAMES = frozenset({"Callable", "Type", "type", "InstanceOf", "Tensor", "timedelta"})
_UNKNOWN_KINDS = frozenset({"Enum", "IntEnum", "StrEnum", "TypedDict", "NamedTuple", "Protocol"})

_being_read: set[int] = set()
"""Classes whose fields are being read."""

_TYPE_NAMES = {
    int: "an integer",
    float: "a number",
    bool: "true or false",
    str: "text",
    type(None): "null",
    list: "a list",
    tuple: "a list",
    dict: "a mapping",
}


def find_problems(value: Any, annotation: Any, path: str) -> list[str]:
    """Return one message for each part of a value that does not fit; none if it fits.

    Args:
        value: A value of a YAML file.
        annotation: A type, as the functions below return it.
        path: Key path of the value.
    """
    if annotation is Any:
        return []
    try:
        adapter = _build_adapter(annotation)
        adapter.validate_python(value)
    except ValidationError as error:
        members = _list_members(annotation)
        if len(members) > 2 or (len(members) == 2 and type(None) not in members):
            return [f"{path}: expected {_describe(members)}, got {value!r:.200}"]
        return [_describe_problem(item, path, annotation) for item in error.errors()]
    except (PydanticUserError, TypeError, RecursionError):
        return []  # not a type that pydantic can check
    return []


def annotation_from_source(
    node: ast.expr, module: SourceModule, *, lax: bool, depth: int = 0
) -> Any:
    """Return the type that an annotation stands for.

    Args:
        node: The annotation.
        module: Where its names are defined.
        lax: Whether values are converted, as pydantic models do; otherwise `"3"` is no integer.
        depth: Number of aliases that were followed.
    """
    recurse = functools.partial(annotation_from_source, module=module, lax=lax, depth=depth + 1)
    if depth > _MAX_DEPTH:
        return Any
    if isinstance(node, ast.Constant):
        if node.value is None:
            return None
        if isinstance(node.value, str):
            return _from_text(node.value, recurse)
        return Any
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        return _union([recurse(node.left), recurse(node.right)])
    if isinstance(node, ast.Subscript):
        return _from_subscript(node, recurse)
    if isinstance(node, (ast.Name, ast.Attribute)):
        return _from_name(node, module, lax, depth)
    return Any


def annotation_from_hint(hint: Any, depth: int = 0) -> Any:
    """Return the strict type for an annotation of an imported object."""
    if depth > _MAX_DEPTH or hint is Any:
        return Any
    if hint is None or hint is type(None):
        return None
    if isinstance(hint, type) and hint in _STRICT:
        return _STRICT[hint]

    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (Union, types.UnionType):
        return _union([annotation_from_hint(each, depth + 1) for each in arguments])
    if origin is Literal:
        return hint
    if origin is Annotated:
        return annotation_from_hint(arguments[0], depth + 1)
    name = getattr(origin or hint, "__name__", "")
    converted = [annotation_from_hint(each, depth + 1) for each in arguments if each is not ...]
    if name in _LISTS:
        return _list_of(converted)
    if name in _MAPPINGS:
        return _mapping_of(converted)
    if name == "tuple":
        return _tuple_of(converted, is_endless=... in arguments)
    if name in _TEXT:
        return _STRICT[str]
    if name in _OPAQUE_NAMES:
        return _OPAQUE
    return Any


def _from_text(text: str, recurse: Callable[[ast.expr], Any]) -> Any:
    try:
        return recurse(ast.parse(text, mode="eval").body)
    except SyntaxError:
        return Any


def _from_subscript(node: ast.Subscript, recurse: Callable[[ast.expr], Any]) -> Any:
    name = ast.unparse(node.value).rpartition(".")[2]
    is_tuple = isinstance(node.slice, ast.Tuple)
    items: Sequence[ast.expr] = node.slice.elts if isinstance(node.slice, ast.Tuple) else ()
    if not is_tuple:
        items = [node.slice]

    if name == "Optional":
        return _union([recurse(items[0]), None])
    if name == "Union":
        return _union([recurse(item) for item in items])
    if name == "Literal":
        values = tuple(item.value for item in items if isinstance(item, ast.Constant))
        return Literal[values] if len(values) == len(items) else Any
    if name == "Annotated":
        return _from_annotated(recurse(items[0]), items[1:])
    if name in _LISTS:
        return _list_of([recurse(item) for item in items])
    if name in _MAPPINGS:
        return _mapping_of([recurse(item) for item in items])
    if name in ("tuple", "Tuple"):
        endless = [item for item in items if isinstance(item, ast.Constant) and item.value is ...]
        members = [recurse(item) for item in items if item not in endless]
        return _tuple_of(members, is_endless=bool(endless))
    if name in _OPAQUE_NAMES:
        return _OPAQUE
    return Any


def _from_annotated(base: Any, metadata: Sequence[ast.expr]) -> Any:
    """Apply the limits of `Field(ge=1)`. A validator may accept anything."""
    if base is Any:
        return Any
    limits: dict[str, Any] = {}
    for item in metadata:
        if not isinstance(item, ast.Call):
            continue
        name = ast.unparse(item.func).rpartition(".")[2]
        if name in ("BeforeValidator", "WrapValidator", "PlainValidator"):
            return Any
        if name != "Field":
            continue
        for keyword in item.keywords:
            try:
                limits[str(keyword.arg)] = ast.literal_eval(keyword.value)
            except ValueError:
                return Any
    return Annotated[base, Field(**limits)] if limits else base


def _from_name(node: ast.expr, module: SourceModule, lax: bool, depth: int) -> Any:
    text = ast.unparse(node)
    name = text.rpartition(".")[2]
    if text in _SCALARS and text not in module.bindings:
        scalar = _SCALARS[text]
        return scalar if lax else _STRICT[scalar]
    if name in _TEXT:
        return _STRICT[str]
    if name in _OPAQUE_NAMES:
        return _OPAQUE
    if text in _LISTS:
        return list[Any]
    if text in _MAPPINGS:
        return dict[str, Any]
    if text in ("tuple", "Tuple"):
        return _tuple_of([], is_endless=True)

    definition = _find(text, module)
    if definition is None or isinstance(definition.node, ast.FunctionDef):
        return Any
    if isinstance(definition.node, ast.ClassDef):
        return _from_class(definition)
    if isinstance(definition.node, ast.Call):
        return Any  # a TypeVar
    return annotation_from_source(definition.node, definition.module, lax=lax, depth=depth + 1)


def _find(text: str, module: SourceModule) -> Definition | None:
    """Return what a name means, if it belongs to this package or to a package of its imports."""
    first, _, _ = text.partition(".")
    binding = module.bindings.get(first)
    if isinstance(binding, Import) and not _is_worth_reading(binding.module):
        return None
    found: Definition | SourceModule | None = module
    for name in text.split("."):
        if not isinstance(found, SourceModule):
            return None
        try:
            found = lookup(found, name)
        except MissingNameError:
            return None
    return found if isinstance(found, Definition) else None


def _is_worth_reading(module_name: str) -> bool:
    package, _, rest = module_name.partition(".")
    return package not in ("typing", "typing_extensions", "collections") and bool(
        rest or package != "torch"
    )


def _from_class(definition: Definition) -> Any:
    from cls_train.composition.signatures import is_model, read_signature

    assert isinstance(definition.node, ast.ClassDef)
    bases = {ast.unparse(base).rpartition(".")[2] for base in definition.node.bases}
    if bases & _UNKNOWN_KINDS:
        return Any
    if not is_model(definition):
        return Any if is_model(definition) is None else _OPAQUE
    if id(definition.node) in _being_read:
        return Any  # a model that contains itself

    _being_read.add(id(definition.node))
    try:
        signature = read_signature(definition)
    finally:
        _being_read.remove(id(definition.node))
    if signature is None:
        return Any

    fields: dict[str, Any] = {}
    for name, parameter in signature.parameters.items():
        default = ... if parameter.is_required else None
        fields[name] = (parameter.annotation, default)
    config = ConfigDict(extra="ignore" if signature.accepts_any else "forbid")
    try:
        return create_model(definition.node.name, __config__=config, **fields)
    except (PydanticUserError, NameError, TypeError, ValueError):
        return Any


def _union(members: Sequence[Any]) -> Any:
    if any(member is Any for member in members):
        return Any
    return Union[tuple(members)]  # noqa: UP007, the members are not known before


def _list_of(items: Sequence[Any]) -> Any:
    return list[items[0]] if items else list[Any]  # type: ignore[valid-type]


def _mapping_of(items: Sequence[Any]) -> Any:
    return dict[items[0], items[1]] if len(items) == 2 else dict[str, Any]  # type: ignore[valid-type]


def _tuple_of(items: Sequence[Any], *, is_endless: bool) -> Any:
    if is_endless:
        return list[items[0] if items else Any]  # type: ignore[misc]
    return tuple[tuple(items)]  # type: ignore[misc]


@functools.lru_cache(maxsize=512)
def _build_adapter(annotation: Any) -> TypeAdapter[Any]:
    return TypeAdapter(annotation)


def _list_members(annotation: Any) -> list[Any]:
    """Return the members of a union, or the type itself."""
    if typing.get_origin(annotation) in (Union, types.UnionType):
        members = []
        for each in typing.get_args(annotation):
            members += _list_members(each)
        return members
    return [annotation]


def _describe(members: Sequence[Any]) -> str:
    names: list[str] = []
    for member in members:
        origin = typing.get_origin(member)
        if origin is Literal:
            names += [repr(value) for value in typing.get_args(member)]
            continue
        if origin is Annotated:
            inner = typing.get_args(member)[0]
            if inner is Opaque:
                continue  # rarely meant, if there is another way to write the value
            name = _TYPE_NAMES.get(inner, "a value")
        else:
            name = _TYPE_NAMES.get(origin or member, "a mapping")
        names.append(name)
    unique = list(dict.fromkeys(names))
    if _TYPE_NAMES[float] in unique and _TYPE_NAMES[int] in unique:
        unique.remove(_TYPE_NAMES[int])
    if len(unique) < 2:
        return "".join(unique) or "a mapping with a _target_"
    return f"{', '.join(unique[:-1])}, or {unique[-1]}"


def _describe_problem(item: Any, path: str, annotation: Any) -> str:
    key = ".".join([path, *map(str, item["loc"])])
    if item["type"] == "extra_forbidden":
        *parents, name = item["loc"]
        hint = did_you_mean(str(name), list_fields(annotation, parents))
        return f"{key}: unknown key; {hint}"
    return describe_value_error(item, key, list_fields(annotation, item["loc"]))


def list_fields(annotation: Any, keys: Sequence[Any]) -> list[str]:
    """Return the fields of the model at a path within a type; none without a model."""
    for key in keys:
        model = _find_model(annotation)
        field = None if model is None else model.model_fields.get(key)
        annotation = None if field is None else field.annotation
    model = _find_model(annotation)
    return [] if model is None else list(model.model_fields)


def _find_model(annotation: Any) -> type[BaseModel] | None:
    for member in _list_members(annotation):
        if isinstance(member, type) and issubclass(member, BaseModel):
            return member
    return None
