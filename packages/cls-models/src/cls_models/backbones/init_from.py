"""Weights of an earlier run for a backbone whose classes have changed: the head's rows find their class by its name.

Shapes: C classes now, D classes then, F features before the head.
"""

import json
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cls_models.backbones.heads import BackboneError, head_name

_log = logging.getLogger(__name__)
_LABELS = "labels_mapping.json"
_BEST = Path("checkpoints", "best.ckpt")
_ONNX = "model.onnx"
_PREFIX = "backbone."
"""Where a ClassificationModule's checkpoint keeps the network."""


@dataclass(frozen=True, slots=True)
class RemappedHead:
    """What became of the head's rows, by class name.

    Attributes:
        checkpoint: the file whose weights were taken.
        kept: classes whose rows were copied, in the order of the new indices.
        new: classes that the earlier run did not know; their rows stay random.
        dropped: classes of the earlier run that are gone.
    """

    checkpoint: Path
    kept: tuple[str, ...]
    new: tuple[str, ...]
    dropped: tuple[str, ...]

    @property
    def summary(self) -> str:
        """One sentence for the log."""
        parts = [
            f"{len(self.kept)} of {len(self.kept) + len(self.new)} classes keep their rows of the head"
        ]
        if self.new:
            parts.append(f"{len(self.new)} are new and start at random ({_few(self.new)})")
        if self.dropped:
            parts.append(f"{len(self.dropped)} are gone ({_few(self.dropped)})")
        return f"initialised from {self.checkpoint}: {', '.join(parts)}"


@dataclass(frozen=True, slots=True)
class SourceRun:
    """Where the weights of an earlier run lie.

    Attributes:
        checkpoint: the file to read them from.
        labels: the labels mapping beside them.
        bundle: the bundle that was named instead of the run; None where it was not.
    """

    checkpoint: Path
    labels: Path
    bundle: Path | None = None

    @property
    def model(self) -> str:
        """What config.yaml names under `model`, for messages; as much as can be said without it."""
        config = self.labels.with_name("config.yaml")
        text = config.read_text(encoding="utf-8", errors="replace") if config.is_file() else ""
        for key in ("name", "_target_"):
            if found := re.search(rf"^model:\n(?: +.*\n)*?  {key}: *(\S+)", text, re.MULTILINE):
                return f"model {found[1]}"
        return "a model that it does not name"


def load_by_class_name(backbone: nn.Module, source: str, classes: Sequence[str]) -> RemappedHead:
    """Give a backbone the best weights of an earlier run, the head's rows moved to where their classes are now.

    Rows of the head (weight [C, F] or [C, F, 1, 1], bias [C]) whose class the earlier run knew are copied; those of
    new classes stay as they are. All other tensors must fit exactly. Nothing is changed if an error is raised. What
    became of the rows is logged, as a warning if no class is shared.

    A bundle serves only inside its run's folder, whose checkpoint is then read: the ONNX file does not hold the
    weights that were trained. The exporter folds batch norms into convolutions, which drops their scales and means;
    it transposes matrices, merges equal tensors, and gives them names of its own.

    Args:
        backbone: maps images to logits [N, C].
        source: a run's folder, a checkpoint inside it, or the bundle (`export/`) inside it.
        classes: the C class names, in index order.

    Raises:
        BackboneError: nothing usable at `source`, another architecture, or `classes` that do not fit the head.
    """
    origin = find_source_run(source)
    old_classes = _classes(_json(origin.labels), origin.labels)
    state = _backbone_state(origin)
    head = head_name(backbone)
    _refuse_another_network(backbone, head, state, origin)
    _refuse_another_class_count(backbone.state_dict()[f"{head}.weight"], classes, "this backbone")
    _refuse_another_class_count(state[f"{head}.weight"], old_classes, str(origin.checkpoint))
    backbone.load_state_dict(_remapped_state(backbone, head, state, old_classes, classes))
    known = set(old_classes)
    remapped = RemappedHead(
        origin.checkpoint,
        kept=tuple(name for name in classes if name in known),
        new=tuple(name for name in classes if name not in known),
        dropped=tuple(name for name in old_classes if name not in set(classes)),
    )
    if remapped.kept:
        _log.info("%s", remapped.summary)
    else:
        _log.warning(
            "%s; no class name is shared, so the whole head starts at random", remapped.summary
        )
    return remapped


def find_source_run(source: str) -> SourceRun:
    """Find the weights that a backbone starts from, as `load_by_class_name` does; `source` is what is named there.

    Raises:
        BackboneError: nothing usable there.
    """
    path = Path(source).resolve()
    if not path.exists():
        raise BackboneError(
            f"{path}: no such run; expected a run's folder, a .ckpt in it, or its export/ folder"
        )
    if path.suffix == ".onnx" or (path / _ONNX).is_file():
        return _locate_run_of(path.parent if path.is_file() else path)
    if path.is_file():
        labels = next(
            (at / _LABELS for at in list(path.parents)[:2] if (at / _LABELS).is_file()), None
        )
        if labels is None:
            raise BackboneError(
                f"{path}: neither its folder nor the one above holds {_LABELS}, which says which row of the head is "
                "which class; give the run's folder, or put that file beside the checkpoint"
            )
        return SourceRun(path, labels)
    for name in (_LABELS, _BEST):
        if not (path / name).is_file():
            raise BackboneError(
                f"{path}: {name} is missing; expected the folder of a run that finished an epoch"
            )
    return SourceRun(path / _BEST, path / _LABELS)


def _locate_run_of(bundle: Path) -> SourceRun:
    labels = bundle / _LABELS
    mapping = _json(labels) if labels.is_file() else {}
    run = bundle.parent
    inside_run = (run / _LABELS).is_file() and (run / _BEST).is_file()
    if inside_run and mapping.get("class_to_idx") == _json(run / _LABELS).get("class_to_idx"):
        return SourceRun(run / _BEST, run / _LABELS, bundle)
    name = (mapping.get("provenance") or {}).get("run")
    folder = f"the folder of run {name!r}" if name else "the folder of the run that exported it"
    raise BackboneError(
        f"{bundle}: training cannot start from a bundle alone. Its ONNX file holds no trained batch norms (they are "
        f"folded into the convolutions) and renames other tensors. Give {folder}, with its checkpoints/, instead"
    )


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise BackboneError(f"{path}: not a readable labels mapping ({error})") from error
    if not isinstance(content, dict):
        raise BackboneError(
            f"{path}: not a labels mapping; expected a JSON object with class_to_idx"
        )
    return content


def _classes(mapping: Mapping[str, Any], path: Path) -> tuple[str, ...]:
    """Return the class names in index order."""
    indices = mapping.get("class_to_idx")
    if not isinstance(indices, dict) or sorted(map(str, indices.values())) != sorted(
        map(str, range(len(indices)))
    ):
        raise BackboneError(
            f"{path}: class_to_idx must give each class name its own index from 0 on; it does not"
        )
    return tuple(sorted(indices, key=lambda name: int(indices[name])))


def _backbone_state(origin: SourceRun) -> dict[str, Tensor]:
    path = origin.checkpoint
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load reports a damaged or hostile file by many exceptions
        raise BackboneError(f"{path}: not a readable checkpoint ({error})") from error
    state = checkpoint.get("state_dict") if isinstance(checkpoint, Mapping) else None
    if not isinstance(state, Mapping):
        raise BackboneError(
            f"{path}: holds no state_dict, so it is not a checkpoint of a run (model.weights takes those)"
        )
    network = {
        key.removeprefix(_PREFIX): value for key, value in state.items() if key.startswith(_PREFIX)
    }
    if not network:
        raise BackboneError(
            f"{path}: its state_dict has no tensor under {_PREFIX!r}, where a run keeps the network"
        )
    if origin.bundle is not None:
        _refuse_later_weights(checkpoint, origin)
    return network


def _refuse_later_weights(checkpoint: Mapping[str, Any], origin: SourceRun) -> None:
    """A run that went on after its export has another best.ckpt than the one that the bundle was made of."""
    assert origin.bundle is not None
    metric = (_json(origin.bundle / _LABELS).get("provenance") or {}).get("metric") or {}
    exported, now = metric.get("step"), (checkpoint.get("scored") or {}).get("step")
    if exported != now:
        raise BackboneError(
            f"{origin.bundle} was exported from step {exported}, but {origin.checkpoint} is now of step {now}; "
            f"to start from that one, give {origin.labels.parent}"
        )


def _refuse_another_network(
    backbone: nn.Module, head: str, state: Mapping[str, Tensor], origin: SourceRun
) -> None:
    own = backbone.state_dict()
    missing, surplus = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
    misshapen = []
    for key in sorted(own.keys() & state.keys()):
        of_head = key in (f"{head}.weight", f"{head}.bias")
        then, now = (
            tuple(tensor.shape[1:] if of_head else tensor.shape)
            for tensor in (state[key], own[key])
        )
        if then != now:
            misshapen.append(f"{key} {list(state[key].shape)} there, {list(own[key].shape)} here")
    if wrong := [
        *misshapen,
        *(f"{key} not there" for key in missing),
        *(f"{key} only there" for key in surplus),
    ]:
        raise BackboneError(
            f"{origin.checkpoint} comes from {origin.model} and does not fit this {type(backbone).__name__}: "
            f"{len(missing)} tensors missing, {len(surplus)} unknown, {len(misshapen)} of another shape "
            f"({'; '.join(wrong[:3])}). Build the same model, stem and options as that run, or start without it"
        )


def _refuse_another_class_count(weight: Tensor, classes: Sequence[str], owner: str) -> None:
    if len(weight) != len(classes) or len(set(classes)) != len(classes):
        raise BackboneError(
            f"the head of {owner} has {len(weight)} rows, so it takes as many class names, each once; "
            f"there are {len(classes)}, {len(set(classes))} of them distinct"
        )


def _remapped_state(
    backbone: nn.Module,
    head: str,
    state: Mapping[str, Tensor],
    old: Sequence[str],
    new: Sequence[str],
) -> dict[str, Tensor]:
    row_then = {name: row for row, name in enumerate(old)}
    rows = [(now, row_then[name]) for now, name in enumerate(new) if name in row_then]
    to, of = (torch.tensor([pair[side] for pair in rows], dtype=torch.long) for side in (0, 1))
    result: dict[str, Tensor] = (
        backbone.state_dict()
    )  # not a new one: MNASNet wants the version that comes with it
    for key in state:
        if key in (f"{head}.weight", f"{head}.bias"):
            result[key] = result[key].cpu().clone()
            result[key][to] = state[key][of]
        else:
            result[key] = state[key]
    return result


def _few(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names[:10])) + (", …" if len(names) > 10 else "")
