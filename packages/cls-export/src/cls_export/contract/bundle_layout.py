"""File names inside a bundle, and the largest files that are read."""

from typing import Final

MODEL_FILE = "model.onnx"
LABELS_FILE = "labels_mapping.json"
GOLDEN_FOLDER = "golden"
GOLDEN_FILE = "golden.json"
CARD_FILE = "README.md"
"""The model card. Bundles before version 0.2 have none."""

METADATA_KEY = "labels_mapping"
"""Key of the ONNX metadata entry that contains the text of labels_mapping.json."""

MAX_MODEL_BYTES: Final = 2**31 - 1
"""The limit of protobuf, in which ONNX files are encoded."""

MAX_LABELS_BYTES: Final = 16 * 2**20

MAX_CARD_BYTES: Final = 2**20

MAX_GOLDEN_BYTES: Final = 32 * 2**20
"""For golden.json."""

MAX_GOLDEN_IMAGE_BYTES: Final = 256 * 2**20

MAX_JSON_VALUES: Final = 500_000
"""For each JSON file: enough for 100,000 classes, or for 8 golden images and 50,000 classes.

pydantic collects an error of about 1 kB for each wrong value, so this bounds its memory."""
