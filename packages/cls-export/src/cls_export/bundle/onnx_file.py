"""How an ONNX file is written, whoever made the graph. Needs `cls-export[torch]`, but no PyTorch."""

from pathlib import Path

from cls_export.contract.bundle_layout import METADATA_KEY
from cls_export.contract.labels_mapping import LabelsMapping

try:
    import onnx
except ImportError as error:
    raise ImportError(
        f'{error.name} is missing; writing ONNX files needs: pip install "cls-export[torch]"'
    ) from error

IR_VERSION = 10
"""Lower than what torch writes, so that the oldest onnxruntime that this package declares reads it (held by CI)."""


def save_model(model: onnx.ModelProto, labels: LabelsMapping, path: Path) -> None:
    """Write one ONNX file, with its weights and the labels mapping inside.

    Raises:
        onnx.checker.ValidationError: the graph breaks a rule of the format.
    """
    model.ir_version = IR_VERSION
    onnx.helper.set_model_props(model, {METADATA_KEY: labels.to_json()})
    onnx.checker.check_model(model)
    onnx.save_model(model, path)
