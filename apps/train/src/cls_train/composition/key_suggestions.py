"""Suggest the key that was meant by an unknown one."""

import difflib
import functools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from cls_export.contract.suggestions import did_you_mean
from cls_train.composition.node_arguments import TARGET, list_app_arguments
from cls_train.composition.signatures import Signature, read_signature
from cls_train.composition.source_modules import MissingNameError, find_definition

KEYS_OF_OTHER_TRAINERS = {
    "accumulate": "trainer.accumulate_grad_batches",
    "amp": "trainer.precision",
    "arch": "model.name",
    "architecture": "model.name",
    "backbone": "model.name",
    "batch": "data.batch_size",
    "bs": "data.batch_size",
    "checkpoint": "model.init_from",
    "clip_grad": "trainer.gradient_clip_val",
    "ckpt": "model.init_from",
    "criterion": "loss",
    "cuda": "trainer.accelerator",
    "data_dir": "data.root",
    "data_path": "data.root",
    "dataset": "data.root",
    "device": "trainer.accelerator",
    "epoch": "trainer.max_epochs",
    "epochs": "trainer.max_epochs",
    "exp_name": "run.name",
    "experiment_name": "run.name",
    "fp16": "trainer.precision",
    "gpu": "trainer.devices",
    "gpus": "trainer.devices",
    "grad_accum": "trainer.accumulate_grad_batches",
    "grad_clip": "trainer.gradient_clip_val",
    "gradient_accumulation_steps": "trainer.accumulate_grad_batches",
    "half": "trainer.precision",
    "image_size": "preprocessing.size",
    "img_size": "preprocessing.size",
    "imgsz": "preprocessing.size",
    "input_size": "preprocessing.size",
    "learning_rate": "optimizer.lr",
    "lr0": "optimizer.lr",
    "model_name": "model.name",
    "n_epochs": "trainer.max_epochs",
    "n_workers": "data.num_workers",
    "num_epochs": "trainer.max_epochs",
    "num_gpus": "trainer.devices",
    "num_train_epochs": "trainer.max_epochs",
    "opt": "optimizer",
    "out": "run.root",
    "out_dir": "run.root",
    "output": "run.root",
    "output_dir": "run.root",
    "per_device_train_batch_size": "data.batch_size",
    "pretrained": "model.weights",
    "project": "run.root",
    "random_seed": "seed",
    "resolution": "preprocessing.size",
    "save_dir": "run.root",
    "sched": "scheduler",
    "smoothing": "loss.label_smoothing",
    "train_batch_size": "data.batch_size",
    "wd": "optimizer.weight_decay",
    "weights": "model.weights",
    "work_dir": "run.root",
    "workers": "data.num_workers",
}
"""Common names in other training programs, and the key here."""

_ADVICE = {
    "classes": "the classes are those of the training split",
    "early_stopping": "docs/training.md says how to add callbacks.early_stopping",
    "num_classes": "the classes are those of the training split",
    "resume": "repeat the command with the same run.name to resume",
    "resume_from": "repeat the command with the same run.name to resume",
    "resume_from_checkpoint": "repeat the command with the same run.name to resume",
}
"""What to do instead of setting a key of another training program."""

_MIN_SIMILARITY = 0.75
"""Smallest ratio of `difflib` at which a key elsewhere is suggested."""

_MAX_PATHS = 2
"""A name that more keys have says too little."""


class KeySuggestions:
    """The keys of a composed configuration, by their last name.

    Args:
        settings: The composed configuration. Unknown names in it are not suggested.
        names: The keys at its top.
    """

    def __init__(self, settings: Mapping[Any, Any], names: Iterable[str]) -> None:
        self._settings = settings
        self._names = tuple(names)

    def suggest(self, path: str, valid: Iterable[str]) -> str:
        """Return a hint for an unknown key, to append to a message after a semicolon.

        Args:
            path: The unknown key path.
            valid: The names that are valid in its place.
        """
        valid = list(valid)
        name = path.rpartition(".")[2].casefold().replace("-", "_")
        advice = self._advise(name, path)
        if advice is not None:
            return advice

        near_valid = _find_nearest(name, valid)
        near_other = _find_nearest(name, self._paths)
        is_better = _ratio(name, near_other) > _ratio(name, near_valid)
        if is_better and _ratio(name, near_other) >= _MIN_SIMILARITY:
            found = self._list_shallowest(near_other, path)
            if found:
                return f"did you mean {' or '.join(map(repr, found))}?"
        return did_you_mean(name, valid)

    @functools.cached_property
    def _paths(self) -> dict[str, list[str]]:
        paths: dict[str, list[str]] = {}
        for name in self._names:
            for path in _list_paths(self._settings.get(name), name):
                _, _, last = path.rpartition(".")
                paths.setdefault(last, []).append(path)
        return paths

    def _advise(self, name: str, path: str) -> str | None:
        if name in _ADVICE:
            return _ADVICE[name]
        known = KEYS_OF_OTHER_TRAINERS.get(name)
        if known is None or known == path:
            return None
        return f"did you mean {known!r}?"

    def _list_shallowest(self, name: str, unknown: str) -> list[str]:
        """Return the key paths nearest to the top; none if there are too many."""
        paths = [path for path in self._paths[name] if path != unknown]
        depths = [path.count(".") for path in paths]
        shallowest = [path for path in paths if path.count(".") == min(depths)]
        return shallowest if len(shallowest) <= _MAX_PATHS else []


def _find_nearest(name: str, names: Iterable[str]) -> str:
    return max(names, key=lambda each: _ratio(name, each), default="")


def _ratio(name: str, other: str) -> float:
    return difflib.SequenceMatcher(None, other.casefold(), name).ratio()


def _list_paths(value: Any, path: str) -> Iterator[str]:
    """Yield a key path and all below it, with the arguments of each node."""
    yield path
    if not isinstance(value, Mapping):
        return
    signature = _read_signature(value.get(TARGET))
    names = [str(name) for name in value if not str(name).startswith("_")]
    if signature is not None:
        supplied = list_app_arguments(path)
        valid = [name for name in signature.parameters if name not in supplied]
        names = list(dict.fromkeys([*names, *valid])) if signature.accepts_any else valid
    for name in names:
        yield from _list_paths(value.get(name), f"{path}.{name}")


def _read_signature(target: Any) -> Signature | None:
    if not isinstance(target, str):
        return None
    try:
        definition = find_definition(target)
    except MissingNameError:
        return None
    return None if definition is None else read_signature(definition)
