"""Initialize a backbone from an earlier run, and match the head's rows by class name.

Shapes: C classes now, D classes of the earlier run, F features before the head.
"""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from cls_export.contract.bundle_layout import LABELS_FILE, MODEL_FILE
from cls_export.contract.run_layout import RunPaths
from cls_models.backbones.heads import BackboneError, find_head_name
from cls_models.torch_file import TorchFileError, get_backbone_state, read_torch_file

_log = logging.getLogger(__name__)
_MAX_NAMES = 10
"""Class names listed in a message."""


@dataclass(frozen=True, slots=True)
class ClassMatchResult:
    """Classes of an earlier run and of a new network, matched by name.

    Attributes:
        checkpoint: The file that the weights come from.
        shared: Classes whose head rows were copied, in the order of the new indices.
        added: Classes that the earlier run does not have; their rows stay random.
        removed: Classes that only the earlier run has.
    """

    checkpoint: Path
    shared: tuple[str, ...]
    added: tuple[str, ...]
    removed: tuple[str, ...]

    @property
    def summary(self) -> str:
        """One sentence for the log."""
        shared, added, removed = len(self.shared), len(self.added), len(self.removed)
        text = f"initialized from {self.checkpoint}: "
        text += f"copied head rows of {shared} of {shared + added} classes"
        if added:
            names = _join_names(self.added)
            text += f", {added} new classes start from random rows ({names})"
        if removed:
            names = _join_names(self.removed)
            text += f", {removed} classes were removed ({names})"
        return text


@dataclass(frozen=True, slots=True)
class InitCheckpoint:
    """The files of an earlier run that a network is initialized from."""

    checkpoint: Path
    labels: Path
    bundle: Path | None = None
    """The bundle that was given instead of the run, if any."""


def load_by_class_name(
    backbone: nn.Module, source: str, classes: Sequence[str]
) -> ClassMatchResult:
    """Load the best weights of an earlier run, and match the head's rows by class name.

    Head rows (weight [C, F] or [C, F, 1, 1], bias [C]) of classes that the earlier run has are
    copied; rows of new classes stay random. All other tensors must fit exactly. Nothing changes if
    an error is raised. The result is logged, as a warning if no class is shared.

    A bundle is accepted only inside its run folder, whose checkpoint is then read: the ONNX file
    does not contain the trained weights. The exporter folds batch norms into convolutions,
    transposes matrices, merges equal tensors, and renames them.

    Args:
        backbone: Maps images to logits [N, C]. Changed in place.
        source: A run folder, a checkpoint inside it, or the bundle (`export/`) inside it.
        classes: The C class names in index order.

    Raises:
        BackboneError: `source` is not usable, its network differs, or `classes` do not fit the
            head.
    """
    origin = find_init_checkpoint(source)
    old_classes = _get_classes(_read_json(origin.labels), origin.labels)
    state = _read_backbone_state(origin)
    head = find_head_name(backbone)
    _check_same_network(backbone, head, state, origin)
    _check_class_count(backbone.state_dict()[f"{head}.weight"], classes, "this backbone")
    _check_class_count(state[f"{head}.weight"], old_classes, str(origin.checkpoint))

    matched = _match_state(backbone, head, state, old_classes, classes)
    backbone.load_state_dict(matched)
    result = ClassMatchResult(
        origin.checkpoint,
        shared=tuple(name for name in classes if name in old_classes),
        added=tuple(name for name in classes if name not in old_classes),
        removed=tuple(name for name in old_classes if name not in classes),
    )

    if result.shared:
        _log.info("%s", result.summary)
    else:
        _log.warning("%s; no class name is shared, so the whole head is random", result.summary)
    return result


def find_init_checkpoint(source: str) -> InitCheckpoint:
    """Find the files that `load_by_class_name` reads; raise a BackboneError if one is missing."""
    path = Path(source).resolve()
    if not path.exists():
        raise BackboneError(
            f"model.init_from: {path}: no such run; expected a run folder, a .ckpt in it, or its "
            "export/ folder"
        )
    if path.suffix == ".onnx" or (path / MODEL_FILE).is_file():
        return _find_run_of_bundle(path.parent if path.is_file() else path)
    if path.is_file():
        for folder in (path.parent, path.parent.parent):
            if (folder / LABELS_FILE).is_file():
                return InitCheckpoint(path, folder / LABELS_FILE)
        raise BackboneError(
            f"{path}: neither its folder nor the parent folder has {LABELS_FILE}, which gives the "
            "class of each head row. Give the run folder, or copy that file next to the checkpoint"
        )
    run = RunPaths(path)
    for file in (run.labels, run.best):
        if not file.is_file():
            raise BackboneError(
                f"{path}: {file.relative_to(path)} is missing; expected the folder of a run that "
                "finished an epoch"
            )
    return InitCheckpoint(run.best, run.labels)


def _find_run_of_bundle(bundle: Path) -> InitCheckpoint:
    labels = bundle / LABELS_FILE
    mapping = _read_json(labels) if labels.is_file() else {}
    run = RunPaths(bundle.parent)
    is_in_run = run.labels.is_file() and run.best.is_file()
    if is_in_run and mapping.get("class_to_idx") == _read_json(run.labels).get("class_to_idx"):
        return InitCheckpoint(run.best, run.labels, bundle)

    name = (mapping.get("provenance") or {}).get("run")
    folder = f"the folder of run {name!r}" if name else "the folder of the run that exported it"
    raise BackboneError(
        f"{bundle}: training cannot start from a bundle alone, because its ONNX file does not "
        "contain the trained weights (batch norms are folded into convolutions). "
        f"Give {folder}, with its checkpoints/"
    )


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise BackboneError(f"{path}: not a readable labels mapping ({error})") from error
    if not isinstance(content, dict):
        raise BackboneError(
            f"{path}: not a labels mapping; expected a JSON object with class_to_idx"
        )
    return content


def _get_classes(mapping: Mapping[str, Any], path: Path) -> tuple[str, ...]:
    """Return the class names in index order."""
    class_to_idx: Any = mapping.get("class_to_idx")
    is_valid = isinstance(class_to_idx, dict)
    if is_valid:
        # Compared as text, because True equals 1 but is not an index.
        indices = sorted(map(str, class_to_idx.values()))
        is_valid = indices == sorted(map(str, range(len(class_to_idx))))
    if not is_valid:
        raise BackboneError(
            f"{path}: class_to_idx must map the class names to the indices 0, 1, 2, ..., each once"
        )
    return tuple(sorted(class_to_idx, key=lambda name: int(class_to_idx[name])))


def _read_backbone_state(origin: InitCheckpoint) -> dict[str, Tensor]:
    try:
        checkpoint = read_torch_file(origin.checkpoint)
        state = get_backbone_state(checkpoint, origin.checkpoint)
    except TorchFileError as error:
        raise BackboneError(str(error)) from error
    if origin.bundle is not None:
        _check_exported_step(checkpoint, origin, origin.bundle)
    return state


def _check_exported_step(
    checkpoint: Mapping[str, Any], origin: InitCheckpoint, bundle: Path
) -> None:
    """Check that best.ckpt is still the one that was exported: the run may have been resumed."""
    provenance = _read_json(bundle / LABELS_FILE).get("provenance") or {}
    exported = (provenance.get("metric") or {}).get("step")
    current = (checkpoint.get("scored") or {}).get("step")
    if exported != current:
        raise BackboneError(
            f"{bundle} was exported from step {exported}, but {origin.checkpoint} is from step "
            f"{current}; to start from that one, give {origin.labels.parent}"
        )


def _check_same_network(
    backbone: nn.Module, head: str, state: Mapping[str, Tensor], origin: InitCheckpoint
) -> None:
    own = backbone.state_dict()
    missing = sorted(own.keys() - state.keys())
    unknown = sorted(state.keys() - own.keys())

    mismatched = []
    for key in sorted(own.keys() & state.keys()):
        first_axis = 1 if key in (f"{head}.weight", f"{head}.bias") else 0  # rows may differ
        if state[key].shape[first_axis:] != own[key].shape[first_axis:]:
            shapes = f"{list(state[key].shape)} in the run, {list(own[key].shape)} here"
            mismatched.append(f"{key} is {shapes}")

    problems = [
        *mismatched,
        *(f"{key} is missing in the run" for key in missing),
        *(f"{key} is only in the run" for key in unknown),
    ]
    if problems:
        raise BackboneError(
            f"{origin.checkpoint} does not fit this {type(backbone).__name__}: {len(missing)} "
            f"tensors missing, {len(unknown)} unknown, {len(mismatched)} of another shape "
            f"({'; '.join(problems[:3])}). Use the model settings in the run's config.yaml, or "
            "remove init_from"
        )


def _check_class_count(weight: Tensor, classes: Sequence[str], owner: str) -> None:
    distinct = len(set(classes))
    if len(weight) != len(classes) or distinct != len(classes):
        raise BackboneError(
            f"the head of {owner} has {len(weight)} rows and needs as many distinct class names; "
            f"got {len(classes)} names, {distinct} of them distinct"
        )


def _match_state(
    backbone: nn.Module,
    head: str,
    state: Mapping[str, Tensor],
    old_classes: Sequence[str],
    new_classes: Sequence[str],
) -> dict[str, Tensor]:
    """Return the run's tensors, with head rows in the order of the new classes."""
    old_row = {name: row for row, name in enumerate(old_classes)}
    new_rows = []
    old_rows = []
    for row, name in enumerate(new_classes):
        if name in old_row:
            new_rows.append(row)
            old_rows.append(old_row[name])

    # The backbone's own dict, because MNASNet needs the version in its metadata.
    result: dict[str, Tensor] = backbone.state_dict()
    for key in state:
        if key in (f"{head}.weight", f"{head}.bias"):
            result[key] = result[key].cpu().clone()
            result[key][new_rows] = state[key][old_rows]
        else:
            result[key] = state[key]
    return result


def _join_names(names: Sequence[str]) -> str:
    listed = [repr(name) for name in names[:_MAX_NAMES]]
    if len(names) > _MAX_NAMES:
        listed.append("…")
    return ", ".join(listed)
