"""File names inside a bundle."""

MODEL_FILE = "model.onnx"
LABELS_FILE = "labels_mapping.json"
GOLDEN_FOLDER = "golden"
GOLDEN_FILE = "golden.json"

METADATA_KEY = "labels_mapping"
"""Key of the ONNX metadata entry that contains the text of labels_mapping.json."""
