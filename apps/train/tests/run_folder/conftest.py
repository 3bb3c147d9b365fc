"""An interrupted run."""

from pathlib import Path
from typing import Any, Protocol

import pytest

from cls_export import LabelsMapping, Provenance
from cls_export.contract.run_layout import RunPaths
from cls_train.builders import build_preprocessing
from cls_train.composition.config import RunConfig
from cls_train.run_folder.resume import begin_run
from cls_train.run_folder.run_paths import choose_run_paths


class MakeLabels(Protocol):
    def __call__(self, *classes: str, fingerprint: str = "a") -> LabelsMapping: ...


@pytest.fixture
def config(composed: Any, tmp_path: Path) -> RunConfig:
    result: RunConfig = composed(f"run.root={tmp_path}", "run.name=one")
    return result


@pytest.fixture
def make_labels(config: RunConfig) -> MakeLabels:
    """Create a labels mapping of some classes."""

    def make(*classes: str, fingerprint: str = "a") -> LabelsMapping:
        indices = {name: index for index, name in enumerate(classes)}
        provenance = Provenance(data_fingerprint=fingerprint)
        return LabelsMapping.from_classes(indices, build_preprocessing(config), provenance)

    return make


@pytest.fixture
def interrupted_run(config: RunConfig, make_labels: MakeLabels) -> RunPaths:
    """A run of the classes 1 and 2, locked by this process, with an empty last.ckpt."""
    run = choose_run_paths(config)
    assert begin_run(run, config, make_labels("1", "2")) is None
    run.checkpoints.mkdir()
    run.last.write_bytes(b"")
    return run
