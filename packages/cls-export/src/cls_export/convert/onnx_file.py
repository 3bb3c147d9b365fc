"""Write ONNX files. Does not need PyTorch."""

from pathlib import Path

import onnx

from cls_export.contract.bundle_layout import METADATA_KEY
from cls_export.contract.files import write_atomically
from cls_export.contract.labels_mapping import LabelsMapping

IR_VERSION = 10
"""Below the version that torch writes, so that the oldest supported onnxruntime (1.23) reads it.

`.ci/check-wheel` checks this."""


def save_model(model: onnx.ModelProto, labels: LabelsMapping, path: Path) -> None:
    """Write one ONNX file atomically, with its weights and the labels mapping inside.

    Raises:
        onnx.checker.ValidationError: The graph violates the ONNX specification.
    """
    model.ir_version = IR_VERSION
    embedded = labels.model_copy(
        update={"schema_version": 3, "model_sha256": None, "golden_sha256": None}
    )
    metadata = {METADATA_KEY: embedded.to_json()}
    onnx.helper.set_model_props(model, metadata)
    onnx.checker.check_model(model)
    write_atomically(path, model.SerializeToString())
