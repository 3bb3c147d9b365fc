"""The configuration of a run, validated before anything is built."""

import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from cls_export.contract.files import refuse_long_names
from cls_train.composition.annotations import list_fields
from cls_train.composition.key_suggestions import KeySuggestions
from cls_train.composition.renames import describe_renamed_key, find_renamed_key
from cls_train.composition.value_errors import describe_value_error
from cls_train.errors import ConfigError

Node = dict[str, Any]
"""A `_target_` with its arguments. The signature of the target is the schema."""


def _none_if_empty(value: Any) -> Any:
    # Hydra turns a YAML file that holds `null` into an empty mapping.
    return value or None


def _number_to_text(value: Any) -> Any:
    if isinstance(value, int):  # run.name=2024
        return str(value)
    return value


def _text_to_list(value: Any) -> Any:
    if isinstance(value, str):  # allow_targets=mypkg
        return [value]
    return value


def _off_if_false(value: Any) -> Any:
    return "off" if value is False else value  # YAML reads the word off as false


def _expand_home(value: Any) -> Any:
    """Replace a leading `~` by the home folder."""
    if not isinstance(value, str):
        return value
    try:
        path = Path(value).expanduser()
    except RuntimeError as error:
        raise ValueError(f"the home folder is unknown ({error})") from error
    refuse_long_names(path)
    return str(path)


def _check_run_name(name: str) -> str:
    if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.=-]*", name) is None:
        raise ValueError(
            "expected letters, digits, and _ . = -, starting with a letter or digit, "
            f"got {name!r:.200}; the folder is run.root"
        )
    return name


def _check_remote(value: str) -> str:
    """Return a URL, or the absolute path of a folder."""
    expected = "expected gs://BUCKET/FOLDER, s3://BUCKET/FOLDER, another URL of fsspec, or a folder"
    protocol, separator, rest = value.partition("://")
    is_mistyped = not separator and re.match(r"[A-Za-z][A-Za-z0-9]+:/", value)  # s3:/bucket
    is_empty = not value.strip() or (separator and not rest.strip("/"))
    if is_empty or is_mistyped or "::" in value:
        raise ValueError(f"{expected}, got {value!r:.200}")
    if protocol in ("http", "https"):
        raise ValueError(f"a web server cannot be written; {expected}, got {value!r:.200}")
    if not separator:
        return str(Path(_expand_home(value)).absolute())

    user, at_sign, _ = rest.partition("/")[0].rpartition("@")
    if at_sign and ":" in user:
        raise ValueError(
            f"the URL {protocol}://… holds a password, which config.yaml would record; set it in "
            "the environment, or in ~/.config/fsspec/conf.json"
        )
    return value.rstrip("/")


def _check_package_name(name: str) -> str:
    names = name.split(".")
    if not all(each.isidentifier() for each in names):
        raise ValueError(f"{name!r} is not the name of a Python package")

    package = names[0]
    if package in sys.stdlib_module_names:
        raise ValueError(f"{package!r} belongs to Python; only your own packages can be allowed")
    return name


OptionalNode = Annotated[Node | None, BeforeValidator(_none_if_empty)]
RunName = Annotated[
    str,
    Field(max_length=100),
    AfterValidator(_check_run_name),
    BeforeValidator(_number_to_text),
]
PackageName = Annotated[str, AfterValidator(_check_package_name)]
PackageNames = Annotated[tuple[PackageName, ...], BeforeValidator(_text_to_list)]
ExpandedPath = Annotated[Path, BeforeValidator(_expand_home)]
RemoteUrl = Annotated[str, AfterValidator(_check_remote)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class RunSection(_Section):
    """Name and parent of the run folder. Repeating a name resumes an interrupted run.

    Attributes:
        remote: Folder or fsspec URL with a copy of the run, from which another machine resumes it.
    """

    name: RunName | None
    root: ExpandedPath
    remote: RemoteUrl | None = None


class Monitor(_Section):
    """The logged metric that selects the best weights."""

    metric: str
    mode: Literal["max", "min"]


class RejectionTarget(_Section):
    """The precision or the coverage that the rejection thresholds must reach on valid.

    Attributes:
        per_class: Also choose a threshold for each class that is predicted often enough.
        required: Fail if no threshold reaches the target. Otherwise the bundle is exported
            without it, and says so.
    """

    precision: Annotated[float, Field(gt=0, le=1)] | None = None
    coverage: Annotated[float, Field(gt=0, le=1)] | None = None
    per_class: bool = False
    required: bool = False

    @model_validator(mode="after")
    def _check_one_target(self) -> "RejectionTarget":
        if (self.precision is None) == (self.coverage is None):
            raise ValueError("expected either precision or coverage")
        return self


class Stages(_Section):
    """The stages after training.

    Attributes:
        evaluate: Evaluate best.ckpt in a clean process.
        export: Write the bundle and verify it.
        identity_tolerance: Largest accepted difference from the logged metric.
        calibrate: How the exported confidence is calibrated on valid; None for plain softmax.
        reject: Target of the rejection thresholds; None for no rejection.
        robustness: Measure the accuracy of the bundle on degraded images.
        report: Write report.html.
    """

    evaluate: bool
    export: bool
    identity_tolerance: Annotated[float, Field(ge=0)]
    calibrate: Literal["temperature", "vector"] | None = None
    reject: RejectionTarget | None = None
    robustness: bool = False
    report: bool = True


_PATH_SETTINGS = {
    "data": ("root", "quarantine", "store"),
    "model": ("init_from",),
    "distillation": ("run",),
}
"""Path settings, converted to absolute paths so that config.yaml works from any directory."""

_FETCHED = ("root", "quarantine")
"""Path settings that may be URLs, see `cls_train.remote_data`."""

_SECTIONS = ("run", "monitor", "stages")
"""Settings that are no nodes and no config groups."""

_NODE_GROUPS = ("callbacks.", "logger.")

_PARTIAL_NODES = ("optimizer", "scheduler")
"""Nodes whose first arguments the app supplies after building the model."""


class RunConfig(_Section):
    """One run: its own settings, and one node per object to build."""

    seed: Annotated[int, Field(ge=0, le=2**32 - 1)]
    allow_targets: PackageNames = ()
    acceleration: Annotated[Literal["auto", "off"], BeforeValidator(_off_if_false)] = "auto"
    run: RunSection
    monitor: Monitor
    stages: Stages
    data: Node
    preprocessing: Node
    augmentation: OptionalNode = None
    mixing: OptionalNode = None
    model: Node
    transfer: OptionalNode = None
    loss: Node
    distillation: OptionalNode = None
    optimizer: Node
    scheduler: OptionalNode = None
    callbacks: dict[str, Node | None]
    trainer: Node
    logger: dict[str, Node | None] = {}

    @classmethod
    def from_hydra(cls, composed: DictConfig, groups: Iterable[str] = ()) -> "RunConfig":
        """Resolve and validate a composed configuration.

        Args:
            composed: What Hydra has composed.
            groups: Names of the config groups, for suggestions.

        Raises:
            ConfigError: A mandatory value is missing, an interpolation fails, a key is unknown, or
                a value has the wrong type.
        """
        _check_sections(composed)
        try:
            settings = OmegaConf.to_container(composed, resolve=True, throw_on_missing=True)
        except MissingMandatoryValue as error:
            key = error.full_key or str(error).rpartition(": ")[2]
            raise ConfigError(f"{key} is required; set it with {key}=VALUE") from error
        except OmegaConfBaseException as error:
            raise ConfigError(describe_omegaconf_error(error)) from error
        except RecursionError as error:
            raise ConfigError(
                "the configuration is nested too deeply, or a value refers to itself"
            ) from error
        except ValueError as error:  # a resolver such as ${hydra:...} or ${oc.decode:...}
            raise ConfigError(f"a value cannot be resolved: {error}") from error
        assert isinstance(settings, dict)

        _check_top_level_names(settings, groups)
        settings = {name: _expand_home_in(value) for name, value in settings.items()}
        for name, keys in _PATH_SETTINGS.items():
            node = settings.get(name)
            if isinstance(node, dict):
                _make_paths_absolute(name, node, keys)
        for name in _PARTIAL_NODES:
            node = settings.get(name)
            if isinstance(node, dict) and "_target_" in node:
                node.setdefault("_partial_", True)

        return cls.from_dict(settings)

    @classmethod
    def from_dict(cls, settings: dict[Any, Any]) -> "RunConfig":
        """Validate plain values, as config.yaml holds them.

        Raises:
            ConfigError: A key is unknown or missing, or a value has the wrong type.
        """
        try:
            return cls.model_validate(settings)
        except ValidationError as error:
            suggestions = KeySuggestions(settings, cls.model_fields)
            lines = [_describe_error(item, suggestions) for item in error.errors()]
            raise ConfigError("\n".join(lines)) from error

    def to_yaml(self) -> str:
        """Return the text of config.yaml."""
        settings = self.model_dump(mode="json")
        return OmegaConf.to_yaml(OmegaConf.create(settings))


def describe_omegaconf_error(error: OmegaConfBaseException) -> str:
    """Return one line that names the key, if OmegaConf knows it."""
    cause = str(error.msg or error).partition("\n")[0]
    return f"{error.full_key}: {cause}" if error.full_key else cause


def _check_sections(composed: DictConfig) -> None:
    """Refuse `monitor=val_acc`, before references such as `${monitor.metric}` fail."""
    for name in _SECTIONS:
        value = composed._get_node(name)
        if value is None:
            raise ConfigError(f"{name} is required, and cannot be removed")
        if isinstance(value, DictConfig) or OmegaConf.is_missing(composed, name):
            continue
        item = {"type": "model_type", "input": composed[name]}
        fields = list_fields(RunConfig, [name])
        raise ConfigError(describe_value_error(item, name, fields))


def _check_top_level_names(settings: dict[Any, Any], groups: Iterable[str]) -> None:
    names = RunConfig.model_fields.keys()
    for name in settings:
        if name in names:
            continue
        if name in groups:
            raise ConfigError(
                f"{name}: this config group has no settings of its own; choose one with "
                f"{name}=NAME. The settings of gate=NAME are below data.gate"
            )
        hint = KeySuggestions(settings, names).suggest(str(name), {*names, *groups})
        raise ConfigError(f"{name!s:.200}: unknown key; {hint}")


def _expand_home_in(value: Any) -> Any:
    """Expand `~` and `~/...` in every text: only paths start like this."""
    if isinstance(value, dict):
        return {key: _expand_home_in(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_expand_home_in(item) for item in value]
    if isinstance(value, str) and (value == "~" or value.startswith("~/")):
        return _expand_home(value)
    return value


def _make_paths_absolute(name: str, node: dict[Any, Any], keys: tuple[str, ...]) -> None:
    for key in keys:
        path = node.get(key)
        is_url = isinstance(path, str) and key in _FETCHED and "://" in path
        if not isinstance(path, str) or not path or is_url:
            continue
        try:
            node[key] = str(Path(_expand_home(path)).absolute())
        except ValueError as error:
            raise ConfigError(f"{name}.{key}: {error}") from error


def _describe_error(item: Any, suggestions: KeySuggestions) -> str:
    path = ".".join(str(name) for name in item["loc"] if name != "[key]")
    if item["type"] == "extra_forbidden":
        return _describe_unknown_key(path, item["loc"], suggestions)
    if item["type"] == "dict_type" and path.startswith(_NODE_GROUPS):
        value = item["input"]
        return f"{path}: expected settings, got {value!r:.200}; to turn it off, set {path}=null"
    fields = list_fields(RunConfig, item["loc"])
    return describe_value_error(item, path, fields)


def _describe_unknown_key(path: str, keys: tuple[Any, ...], suggestions: KeySuggestions) -> str:
    new_path = find_renamed_key(path)
    if new_path is not None:
        return describe_renamed_key(path, new_path)

    hint = suggestions.suggest(path, list_fields(RunConfig, keys[:-1]))
    return f"{path}: unknown key; {hint}"
