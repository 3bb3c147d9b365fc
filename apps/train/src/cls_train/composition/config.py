"""The closed skeleton of a run: checked before anything is built."""

from pathlib import Path
from typing import Annotated, Any, Literal

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from cls_export.contract.suggestions import did_you_mean
from cls_train.errors import ConfigError

Node = dict[str, Any]
"""A `_target_` with its arguments; the constructor's signature is its schema."""

OptionalNode = Annotated[Node | None, BeforeValidator(lambda value: value or None)]
"""A node, or nothing; Hydra gives an empty mapping for a YAML file that holds null."""


_AS_TEXT = BeforeValidator(
    lambda value: str(value) if isinstance(value, int) else value
)  # run.name=2024


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class RunSection(_Section):
    """Where the run's folder lies. A name that is given again resumes an interrupted run."""

    name: (
        Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.=-]*$", max_length=100), _AS_TEXT]
        | None
    )
    root: Path


class Monitor(_Section):
    """The metric, as the module logs it, by which the best weights are chosen."""

    metric: str
    mode: Literal["max", "min"]


class RejectionTarget(_Section):
    """What the exported model's thresholds are to reach on valid: a precision or a coverage."""

    precision: Annotated[float, Field(gt=0, le=1)] | None = None
    coverage: Annotated[float, Field(gt=0, le=1)] | None = None
    per_class: bool = False

    @model_validator(mode="after")
    def _is_one_wish(self) -> "RejectionTarget":
        if (self.precision is None) == (self.coverage is None):
            raise ValueError("expected either precision or coverage")
        return self


class Stages(_Section):
    """What follows the fit. `identity_tolerance` is the largest accepted difference from the logged metric.

    `calibrate` and `reject` are what the exported labels mapping says of confidence, fitted to valid. `degrade` also
    asks the exported model about images that were made worse; `report` writes report.html.
    """

    evaluate: bool
    export: bool
    identity_tolerance: Annotated[float, Field(ge=0)]
    calibrate: Literal["temperature", "vector"] | None = None
    reject: RejectionTarget | None = None
    degrade: bool = False
    report: bool = True


_PATHS = {
    "data": ("root", "quarantine", "store"),
    "model": ("init_from",),
    "distillation": ("run",),
}
"""By node: what config.yaml says must hold from any folder."""


class RunConfig(_Section):
    """One run. The sections hold the skeleton's own settings, the nodes what is to be built."""

    seed: Annotated[int, Field(ge=0, le=2**32 - 1)]
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
    def from_hydra(cls, composed: DictConfig) -> "RunConfig":
        """Resolve and check a composed configuration.

        Raises:
            ConfigError: a mandatory value is missing, an interpolation fails, or a key is unknown or of a wrong type.
        """
        try:
            plain = OmegaConf.to_container(composed, resolve=True, throw_on_missing=True)
        except MissingMandatoryValue as error:
            key = error.full_key or str(error).rpartition(": ")[2]
            raise ConfigError(
                f"{key} has no value; give it one on the command line: {key}=VALUE"
            ) from error
        except OmegaConfBaseException as error:
            raise ConfigError(f"{error.full_key}: {error.msg or error}") from error
        assert isinstance(plain, dict)
        settings = {str(key): value for key, value in plain.items()}
        for name, paths in _PATHS.items():
            if isinstance(node := settings.get(name), dict):
                settings[name] = {
                    key: _absolute(value) if key in paths else value for key, value in node.items()
                }
        return cls.checked(settings)

    @classmethod
    def checked(cls, plain: dict[str, Any]) -> "RunConfig":
        """Check plain values, such as config.yaml holds.

        Raises:
            ConfigError: a key is unknown, missing or of a wrong type.
        """
        try:
            return cls.model_validate(plain)
        except ValidationError as error:
            raise ConfigError("\n".join(_explain(item) for item in error.errors())) from error

    def to_yaml(self) -> str:
        """Return the text of config.yaml."""
        return OmegaConf.to_yaml(OmegaConf.create(self.model_dump(mode="json")))


def _absolute(path: Any) -> Any:
    return str(Path(path).absolute()) if isinstance(path, str) else path


def _explain(item: Any) -> str:
    path = ".".join(map(str, item["loc"]))
    if item["type"] == "extra_forbidden":
        parent: Any = RunConfig
        for key in item["loc"][:-1]:
            parent = parent.model_fields[key].annotation
        return f"{path}: unknown key; {did_you_mean(str(item['loc'][-1]), parent.model_fields)}"
    if item["type"] == "missing":
        return f"{path}: {item['msg']}"
    return f"{path}: {item['msg']}, got {item['input']!r:.200}"
