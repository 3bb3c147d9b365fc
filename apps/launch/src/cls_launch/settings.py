"""The settings of a launch, composed from conf/launch.yaml and validated."""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, TypeVar

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, ValidationError

from cls_export.contract.suggestions import did_you_mean
from cls_launch.errors import LaunchError
from cls_launch.secret_names import check_environment, check_secrets
from cls_launch.targets import TARGETS, import_target
from cls_launch.targets.target import Resources, Target, TargetSettings
from cls_train.composition.arguments import CommandLine
from cls_train.composition.compose import Composer
from cls_train.composition.config import describe_omegaconf_error
from cls_train.composition.value_errors import describe_value_error
from cls_train.errors import ConfigError

MAX_NAME = 63
"""Longest name that all services accept."""

ModelT = TypeVar("ModelT", bound=BaseModel)

_NAME = re.compile(r"[a-z]([a-z0-9-]*[a-z0-9])?")
_HIDDEN = ("environment", "secrets")
_LABEL = re.compile(r"[a-z0-9]([a-z0-9_-]{0,61}[a-z0-9])?")
_LABEL_KEY = re.compile(r"[a-z]([a-z0-9_-]{0,61}[a-z0-9])?")


def check_name(name: str) -> str:
    """Return a name that can be the one of a run and of its job.

    Raises:
        ValueError: It has other characters, or is too long.
    """
    if len(name) > MAX_NAME or _NAME.fullmatch(name) is None:
        raise ValueError(
            f"expected at most {MAX_NAME} lowercase letters, digits, and -, starting with a "
            f"letter, because the job has the same name; got {name!r:.200}"
        )
    return name


def _check_labels(labels: dict[str, str]) -> dict[str, str]:
    for key, value in labels.items():
        if _LABEL_KEY.fullmatch(key) is None or _LABEL.fullmatch(value) is None:
            raise ValueError(
                "expected at most 63 lowercase letters, digits, - and _ in a name (after a letter) "
                f"and in a value, got {key!r:.100}: {value!r:.100}"
            )
    return labels


def _names_to_mapping(value: Any) -> Any:
    if value is None:
        return {}
    if isinstance(value, (list, tuple)):  # secrets=[WANDB_API_KEY]
        return {str(name): str(name) for name in value}
    if not isinstance(value, Mapping):
        raise ValueError("expected [VARIABLE] or {VARIABLE: NAME OF A SECRET}")
    return value


def _scalars_to_text(value: Any) -> Any:
    if not isinstance(value, Mapping):
        raise ValueError("expected names and values: {NAME: VALUE}")
    return {key: str(item) for key, item in value.items()}


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class RunSection(_Section):
    """The name of the run."""

    name: Annotated[str, AfterValidator(check_name)] | None = None


Environment = Annotated[
    dict[str, str], AfterValidator(check_environment), BeforeValidator(_scalars_to_text)
]
Secrets = Annotated[
    dict[str, str], AfterValidator(check_secrets), BeforeValidator(_names_to_mapping)
]
Labels = Annotated[dict[str, str], AfterValidator(_check_labels), BeforeValidator(_scalars_to_text)]


class LaunchSettings(_Section):
    """What conf/launch.yaml and the arguments before `--` say, without the target's own settings.

    Attributes:
        run: The name of the run.
        image: The image as it was given.
        resources: What the job needs.
        environment: Values of environment variables.
        secrets: Environment variable → name of a secret of the target.
        labels: More labels of the job.
        allow_dirty: Launch although there are local changes.
        allow_other_commit: Launch although the image was built from another commit.
    """

    run: RunSection
    image: str | None
    resources: Resources
    environment: Environment
    secrets: Secrets
    labels: Labels
    allow_dirty: bool
    allow_other_commit: bool


def compose_launch(
    arguments: Sequence[str], config_dir: Path
) -> tuple[LaunchSettings, Target[Any], str]:
    """Compose the arguments before `--`.

    Returns:
        The settings, the target, and its name.

    Raises:
        LaunchError, ConfigError: An argument is wrong. The message names it.
    """
    name, changed = _choose_target(arguments, config_dir)
    command = CommandLine(tuple(changed), config_name="launch")
    with _hidden_values(arguments):
        (run,) = Composer(config_dir, command).compose_runs(command.overrides, multirun=False)
    try:
        values = OmegaConf.to_container(run.settings, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        raise LaunchError(describe_omegaconf_error(error)) from error
    assert isinstance(values, dict)
    target_values = values.pop("target", None)
    target_class = import_target(name)
    settings_type = target_class.settings_type
    settings = _validate(LaunchSettings, values, "", settings_type)
    target_settings = _validate(settings_type, target_values, "target", settings_type)
    return settings, target_class(target_settings), name


def _choose_target(arguments: Sequence[str], config_dir: Path) -> tuple[str, list[str]]:
    """Return the chosen target, and the arguments as Hydra reads them."""
    name, others = "local", []
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if key == "target" and equals:
            name = value
        else:
            others.append(argument)
    choices = [target for target in TARGETS if (config_dir / "launch" / f"{target}.yaml").exists()]
    if name not in choices:
        raise LaunchError(f"target: {name!r:.200} is not a target; {did_you_mean(name, choices)}")
    return name, [f"launch@target={name}", *others]


@contextmanager
def _hidden_values(arguments: Sequence[str]) -> Iterator[None]:
    """Keep values of `secrets` and `environment` out of messages."""
    try:
        yield
    except ConfigError as error:
        for argument in arguments:
            key, _, value = argument.partition("=")
            if key.lstrip("+").startswith(_HIDDEN) and value and value in str(error):
                raise LaunchError(
                    f"{key:.200}: cannot be read; expected NAME=VALUE without special characters, "
                    "such as 'secrets={WANDB_API_KEY: wandb}' or environment.HF_HUB_OFFLINE=1"
                ) from None
        raise


def _validate(model: type[ModelT], values: Any, path: str, target: type[TargetSettings]) -> ModelT:
    try:
        return model.model_validate(values)
    except ValidationError as error:
        lines = [_describe_problem(model, item, path, target) for item in error.errors()]
        raise LaunchError("\n".join(lines)) from error


def _describe_problem(
    model: type[BaseModel], item: Any, path: str, target: type[TargetSettings]
) -> str:
    names = [path, *map(str, item["loc"])]
    key = ".".join(name for name in names if name and name != "[key]")
    if item["type"] == "extra_forbidden":
        return f"{key}: unknown key; {_suggest(model, item['loc'], path, target)}"
    if key.startswith(_HIDDEN):  # never show a value of these
        return f"{key}: {item.get('ctx', {}).get('error') or item['msg']}"
    return describe_value_error(item, key, _list_fields(model, item["loc"]))


def _suggest(
    model: type[BaseModel], keys: Sequence[Any], path: str, target: type[TargetSettings]
) -> str:
    """Return a hint for an unknown key, which may be one of another section or target."""
    given = str(keys[-1])
    if path == "target" and given in target.synonyms:
        return f"use target.{target.synonyms[given]}"
    if not path and len(keys) == 1:
        sections: dict[str, type[BaseModel]] = {"resources": Resources, "target": target}
        for section, fields in sections.items():
            if given in fields.model_fields:
                return f"did you mean {section}.{given}?"
    return did_you_mean(given, _list_fields(model, keys[:-1]))


def _list_fields(model: type[BaseModel], keys: Sequence[Any]) -> list[str]:
    fields: Any = model
    for key in keys:
        fields = fields.model_fields[key].annotation if hasattr(fields, "model_fields") else None
    return list(getattr(fields, "model_fields", ()))
