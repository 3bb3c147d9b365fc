"""Export from PyTorch and conversion to reduced precision.

Needs `pip install "cls-export[torch]"`.
"""

import importlib

from cls_export.contract.errors import MissingExtraError

for _name in ("onnx", "onnx_ir"):
    try:
        importlib.import_module(_name)
    except ImportError as error:
        raise MissingExtraError(
            f'{_name} is not installed. To write ONNX files: pip install "cls-export[torch]"'
        ) from error
