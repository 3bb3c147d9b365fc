"""Compose the configuration of each run of a command line, once.

Hydra parses the arguments and composes the config groups. Settings of single keys are applied here,
so that `key=value` works whether or not a YAML file names the key. What is checked is the very
configuration that runs.
"""

import copy
import os
import re
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra import version
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_config_search_path
from hydra.core.config_search_path import SearchPathQuery
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from cls_export.contract.suggestions import did_you_mean
from cls_train.composition.arguments import CommandLine
from cls_train.composition.config import RunConfig, describe_omegaconf_error
from cls_train.composition.hydra_settings import check_hydra_key, check_hydra_node, is_hydra_key
from cls_train.composition.overrides import (
    check_no_sweep,
    parse_overrides,
    show_argument,
    split_sweep,
)
from cls_train.composition.package_header import check_package_headers
from cls_train.composition.renames import describe_renamed_key, find_renamed_key
from cls_train.errors import ConfigError

HYDRA_VERSION_BASE = "1.3"

_OTHER_GROUPS = ("hydra", "launch")

_OFF = "none"
"""The choice of a group that turns it off."""

_UNKNOWN_GROUP = re.compile(r"Could not override '([^'@]+)(?:@[^']*)?'.*defaults list", re.DOTALL)


class Composer:
    """Composes configurations from one set of folders.

    Args:
        config_dir: The app's folder of YAML files.
        command: The flags `--config-dir`, `--config-path`, and `--config-name`.

    Raises:
        ConfigError: A folder or the main file does not exist.
    """

    def __init__(self, config_dir: Path, command: CommandLine) -> None:
        version.setbase(HYDRA_VERSION_BASE)
        GlobalHydra.instance().clear()
        folder = _find_folder(command.config_path, "--config-path") or str(config_dir)
        search_path = create_config_search_path(folder)
        more = _find_folder(command.config_dir, "--config-dir")
        if more is not None:
            anchor = SearchPathQuery(provider="schema", path=None)
            search_path.prepend(provider="command-line", path=f"file://{more}", anchor=anchor)

        self._hydra = Hydra.create_main_hydra2("train", search_path)
        loader = self._hydra.config_loader
        assert isinstance(loader, ConfigLoaderImpl)
        self.loader = loader
        self._first_repository = loader.repository
        self._search_path: list[str] | None = None
        self._config_name = (command.config_name or "config").removesuffix(".yaml")
        self._check_config_name()
        self._composed: dict[tuple[str, ...], DictConfig] = {}

    def list_groups(self) -> list[str]:
        """Return the names of the config groups, without those of Hydra and `apps/launch`."""
        return [name for name in self.loader.list_groups("") if name not in _OTHER_GROUPS]

    def list_choices(self, group: str) -> list[str]:
        """Return the choices of a config group."""
        # That of the loader copies its whole cache on each call.
        return self.loader.repository.get_group_options(group, results_filter=ObjectType.CONFIG)

    def compose_runs(self, arguments: Sequence[str], *, multirun: bool) -> list["ComposedRun"]:
        """Compose every run of a command line.

        Args:
            arguments: Such as `seed=1,2`.
            multirun: Whether several values are several runs.

        Raises:
            ConfigError: An argument is wrong, or the files do not compose.
        """
        overrides = parse_overrides(arguments, self.loader)
        self._read_search_path(overrides)
        for override in overrides:
            if _is_hydra_override(override):
                check_hydra_key(override.package or override.key_or_group)

        if not multirun and not _sets_multirun(overrides):
            check_no_sweep(overrides)
            return [ComposedRun(self.compose(overrides), tuple(arguments))]

        overrides = [*self._read_sweep_parameters(overrides), *overrides]
        runs = []
        for run_overrides in split_sweep(overrides, self.loader):
            whole = tuple(str(override.input_line) for override in run_overrides)
            runs.append(ComposedRun(self.compose(run_overrides), whole))
        return runs

    def compose(self, overrides: Sequence[Override]) -> DictConfig:
        """Compose one configuration, without the settings of Hydra.

        Raises:
            ConfigError: An argument is wrong, or the files do not compose.
        """
        group_overrides: dict[str, str] = {}
        settings = []
        for override in overrides:
            if self._is_group_override(override):
                key = override.get_key_element().lstrip("+")
                group_overrides[key] = self._check_choice(override).lstrip("+")  # the last wins
            else:
                settings.append(override)

        with explained_hydra_errors():
            composed = self._compose_groups(list(group_overrides.values()))
            check_hydra_node(composed)
            check_package_headers(composed, self.loader)
            HydraConfig.instance().set_config(composed)  # for ${hydra:…}
            OmegaConf.set_struct(composed, False)
            del composed["hydra"]

        for override in settings:
            self._apply(override, composed)
        return composed

    def add_plus(self, arguments: Sequence[str]) -> list[str]:
        """Return arguments for Hydra, where `++` sets a key that no YAML file names.

        Raises:
            ConfigError: An argument is wrong.
        """
        changed = []
        for override in parse_overrides(arguments, self.loader):
            text = str(override.input_line)
            is_setting = not self._is_group_override(override) and not override.is_delete()
            changed.append(f"++{text.lstrip('+')}" if is_setting else text)
        return changed

    def _is_group_override(self, override: Override) -> bool:
        if _is_hydra_override(override):
            return True
        is_settings = isinstance(override.value(), dict)
        return not is_settings and self.loader.repository.group_exists(override.key_or_group)

    def _check_choice(self, override: Override) -> str:
        """Return the text of a group override whose choices exist."""
        group, value = override.key_or_group, override.value()
        if override.is_delete() or is_hydra_key(group):
            return str(override.input_line)

        choices = self.list_choices(group)
        names = value if isinstance(value, list) else [value]
        for name in names:
            text = "null" if name is None else str(name)
            if text.removesuffix(".yaml") in choices:
                continue
            if value is None and group not in RunConfig.model_fields and _OFF not in choices:
                return f"~{group}"  # experiment and debug are off by default
            raise ConfigError(_describe_unknown_choice(group, text, choices))
        return str(override.input_line)

    def _compose_groups(self, overrides: list[str]) -> DictConfig:
        """Compose with Hydra, once for all runs of a sweep with the same choices."""
        key = tuple(overrides)
        if key not in self._composed:
            self._composed[key] = self._compose_with_hydra(overrides)
        return copy.deepcopy(self._composed[key])

    def _compose_with_hydra(self, overrides: list[str]) -> DictConfig:
        """Compose. A group that the defaults list lacks is added to it."""
        for _ in range(len(overrides) + 1):
            try:
                return self._hydra.compose_config(
                    config_name=self._config_name,
                    overrides=overrides,
                    run_mode=RunMode.RUN,
                    with_log_configuration=False,
                    from_shell=False,
                )
            except HydraException as error:
                group = _UNKNOWN_GROUP.match(str(error))
                if group is None:
                    raise
                starts = (f"{group[1]}=", f"{group[1]}@")
                overrides = [f"+{o}" if o.startswith(starts) else o for o in overrides]
        raise ConfigError(f"{', '.join(overrides)}: cannot be composed")

    def _apply(self, override: Override, composed: DictConfig) -> None:
        """Apply a setting of one key. A mapping with a `_target_` replaces the whole node."""
        key, value = override.key_or_group, override.value()
        shown = show_argument(override)
        if override.package is not None or "/" in key:
            raise ConfigError(f"{shown}: there is no such config group; {self._suggest(key)}")

        is_group = self.loader.repository.group_exists(key)
        if is_group and isinstance(value, dict) and key not in composed:
            raise ConfigError(
                f"{shown}: {key} is a config group without settings of its own; "
                f"choose one with {key}=NAME ({', '.join(self.list_choices(key))})"
            )
        if value is None and not override.is_delete():
            _check_turned_off(composed, key)
        try:
            if override.is_delete():
                _delete(composed, key, shown)
                return
            replaces = isinstance(value, dict) and ("_target_" in value or not value)
            OmegaConf.update(composed, key, value, merge=not replaces, force_add=True)
        except ConfigError:
            raise
        except OmegaConfBaseException as error:
            raise ConfigError(_describe_refused(composed, key, shown, error)) from error
        except (AssertionError, AttributeError, TypeError, ValueError, RecursionError) as error:
            cause = str(error) or "the value is not possible here"
            raise ConfigError(f"{shown}: {cause:.300}") from error

    def _suggest(self, name: str) -> str:
        return did_you_mean(name.partition("@")[0], self.list_groups())

    def _check_config_name(self) -> None:
        names = self.list_choices("")
        if self._config_name not in names and not self.loader.repository.config_exists(
            self._config_name
        ):
            hint = did_you_mean(self._config_name, names)
            raise ConfigError(f"--config-name: no file {self._config_name}.yaml; {hint}")

    def _read_search_path(self, overrides: Sequence[Override]) -> None:
        """Add the folders of `hydra.searchpath`, so that their groups are known."""
        arguments = []
        for override in overrides:
            if override.key_or_group == "hydra.searchpath":
                arguments.append(str(override.input_line))
        if arguments == self._search_path:
            return
        self.loader.repository = self._first_repository
        with explained_hydra_errors():
            _, caching_repository = self.loader._parse_overrides_and_create_caching_repo(
                self._config_name, arguments
            )
        repository: Any = caching_repository  # reads each file once
        self.loader.repository = repository
        self._search_path = arguments
        self._composed.clear()

    def _read_sweep_parameters(self, overrides: Sequence[Override]) -> list[Override]:
        """Return the sweeps of `hydra.sweeper.params` in the YAML files and the arguments."""
        fixed = []
        for override in overrides:
            if self._is_group_override(override) and not override.is_sweep_override():
                fixed.append(self._check_choice(override).lstrip("+"))
        with explained_hydra_errors():
            composed = self._compose_groups(fixed)
            parameters = OmegaConf.select(composed, "hydra.sweeper.params") or {}
            arguments = [f"{key}={value}" for key, value in parameters.items()]
        return parse_overrides(arguments, self.loader)


class ComposedRun:
    """One composed run.

    Attributes:
        settings: The composed configuration, without Hydra's.
        overrides: The arguments of this run.
    """

    def __init__(self, settings: DictConfig, overrides: tuple[str, ...]) -> None:
        self.settings = settings
        self.overrides = overrides


def _is_hydra_override(override: Override) -> bool:
    return is_hydra_key(override.key_or_group) or is_hydra_key(override.package or "")


def _sets_multirun(overrides: Iterable[Override]) -> bool:
    modes = [each.value() for each in overrides if each.key_or_group == "hydra.mode"]
    return bool(modes) and str(modes[-1]).upper() == "MULTIRUN"


def _find_folder(path: str | None, flag: str) -> str | None:
    """Return the absolute path of a folder; None if there is none."""
    if path is None or path.startswith("pkg://"):
        return path
    folder = Path(path.removeprefix("file://")).expanduser().absolute()
    if not folder.is_dir():
        raise ConfigError(f"{flag}: {folder} is not a folder")
    return str(folder)


def _check_turned_off(composed: DictConfig, key: str) -> None:
    """Refuse `callbacks.emma=null`, which would turn nothing off."""
    group, _, name = key.partition(".")
    nodes = composed.get(group)
    if group not in ("callbacks", "logger") or "." in name or not isinstance(nodes, DictConfig):
        return
    if name in nodes:
        return
    new_key = find_renamed_key(key)
    if new_key is not None:
        raise ConfigError(describe_renamed_key(key, new_key))
    raise ConfigError(f"{key}: unknown name; {did_you_mean(name, map(str, nodes))}")


def _delete(composed: DictConfig, key: str, shown: str) -> None:
    parent_key, _, name = key.rpartition(".")
    parent: Any = OmegaConf.select(composed, parent_key) if parent_key else composed
    if isinstance(parent, DictConfig) and name in parent:
        del parent[name]
        return
    if isinstance(parent, ListConfig) and name.isdigit() and int(name) < len(parent):
        del parent[int(name)]
        return
    names = map(str, parent) if isinstance(parent, DictConfig) else ()
    raise ConfigError(f"{shown}: there is no {key} to delete; {did_you_mean(name, names)}")


def _looks_like_path(text: str) -> bool:
    return os.sep in text or text.startswith(("~", ".")) or Path(text).exists()


def _describe_unknown_choice(group: str, given: str, choices: Sequence[str]) -> str:
    message = f"{group}: {given!r:.200} is not a choice"
    if group == "data" and _looks_like_path(given):
        root = f"data.root={given:.200}"
        return f"{message}; for your own images: data=folder {root}, or data=jsonl {root}"
    message += f"; {did_you_mean(given, choices)}"
    if _OFF in choices:
        message += f"; to turn it off, set {group}={_OFF}"
    return message


def _describe_refused(
    composed: DictConfig, key: str, shown: str, error: OmegaConfBaseException
) -> str:
    names = key.split(".")
    for length in range(1, len(names)):
        path = ".".join(names[:length])
        try:
            value = OmegaConf.select(composed, path)
        except OmegaConfBaseException:
            break
        if value is not None and not isinstance(value, (DictConfig, ListConfig)):
            return f"{shown}: {path} is {value!r:.100}, which has no settings below it"
    if isinstance(composed.get(key), DictConfig):
        return f"{shown}: {key} has keys of its own; set them one by one, as in {key}.KEY=VALUE"
    cause = str(error.msg or error).partition("\n")[0]
    return f"{shown}: {cause}"


@contextmanager
def explained_hydra_errors() -> Iterator[None]:
    """Turn the errors of Hydra, OmegaConf, and YAML into `ConfigError`."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)  # a folder of hydra.searchpath is missing
            yield
    except OmegaConfBaseException as error:
        raise ConfigError(describe_omegaconf_error(error)) from error
    except YAMLError as error:
        raise ConfigError(f"a YAML file cannot be read: {error}") from error
    except KeyError as error:  # hydra.job.env_copy
        raise ConfigError(f"{error}: no such environment variable or key") from error
    except RecursionError as error:
        raise ConfigError("the configuration is nested too deeply, or refers to itself") from error
    except (HydraException, UserWarning, UnicodeDecodeError) as error:
        cause = error.__cause__
        text = str(error) or str(cause)
        if isinstance(cause, (OmegaConfBaseException, YAMLError)):
            text += f" ({cause})"
        raise ConfigError(text.expandtabs(2)) from error
