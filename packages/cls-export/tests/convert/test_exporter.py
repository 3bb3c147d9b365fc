import os
from pathlib import Path

import numpy as np
import pytest

from cls_export import BundleError, Classifier, LabelsMapping, verify_bundle
from cls_export.bundle.golden import write_golden
from cls_export.bundle.model_card import CardFigure
from cls_export.contract.files import draft_path

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")
exporter = pytest.importorskip("cls_export.convert.exporter")
onnx_file = pytest.importorskip("cls_export.convert.onnx_file")


def small_module(num_classes: int = 4) -> "torch.nn.Module":
    return torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3), torch.nn.Flatten(), torch.nn.LazyLinear(num_classes)
    )


@pytest.fixture
def module() -> "torch.nn.Module":
    torch.manual_seed(0)
    module = small_module()
    module(torch.zeros(1, 3, 12, 10))
    return module


def test_onnx_file_has_weights_mapping_and_free_batch_axis(
    module: "torch.nn.Module", labels: LabelsMapping, tmp_path: Path
) -> None:
    draft = draft_path(tmp_path / "model.onnx")
    stale = draft.with_name(draft.name.replace(f".{os.getpid()}.", ".999999999."))
    stale.write_bytes(b"of a killed export")
    exporter.export_onnx(module, labels, tmp_path / "model.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]
    model = onnx.load(tmp_path / "model.onnx")
    assert (model.ir_version, model.opset_import[0].version) == (
        onnx_file.IR_VERSION,
        exporter.OPSET,
    )
    assert LabelsMapping.from_json(model.metadata_props[0].value) == labels
    text = (tmp_path / "model.onnx").read_bytes()
    assert str(Path.home()).encode() not in text
    assert str(Path(__file__).parents[4]).encode() not in text
    assert b"site-packages" not in text
    assert not model.graph.input[0].type.tensor_type.shape.dim[0].HasField("dim_value")


@pytest.mark.parametrize("size", [1, 2, 7, 64])
def test_runtime_matches_module_at_any_batch_size(
    module: "torch.nn.Module", labels: LabelsMapping, tmp_path: Path, size: int
) -> None:
    exporter.export_onnx(module, labels, tmp_path / "model.onnx")
    images = np.random.default_rng(0).integers(0, 256, (size, 15, 15, 3), dtype=np.uint8)
    inputs = np.concatenate([labels.preprocessing(image) for image in images])
    with torch.inference_mode():
        expected = module.eval()(torch.from_numpy(inputs)).numpy()
    logits = Classifier(tmp_path / "model.onnx", batch_size=64).logits(images)
    assert np.abs(logits - expected).max() < 1e-5


def test_export_does_not_change_module(
    labels: LabelsMapping, tmp_path: Path, image_files: list[Path]
) -> None:
    module = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3),
        torch.nn.BatchNorm2d(4),
        torch.nn.Flatten(),
        torch.nn.Linear(320, 4),
    )
    module.train()
    module[1].eval()  # a frozen batch norm
    before = {name: value.clone() for name, value in module.state_dict().items()}
    exporter.write_bundle(module, labels, tmp_path / "export", image_files)
    exporter.check_parity(module, labels, tmp_path / "export/model.onnx")
    assert [layer.training for layer in module] == [True, False, True, True]
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


def test_exported_bundle_has_a_model_card_with_the_figures(
    module: "torch.nn.Module", labels: LabelsMapping, tmp_path: Path, image_files: list[Path]
) -> None:
    figures = [CardFigure("test", "top-1 accuracy", 0.89, 0.85, 0.92, 364)]
    exporter.write_bundle(module, labels, tmp_path / "export", image_files, figures)
    card = (tmp_path / "export/README.md").read_text()
    assert "| `test` | `top-1 accuracy` | 89.0% | 85.0% to 92.0% | 364 |" in card
    assert verify_bundle(tmp_path / "export").passed


def test_folder_that_is_not_a_bundle_is_not_replaced(
    module: "torch.nn.Module", labels: LabelsMapping, tmp_path: Path, image_files: list[Path]
) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(BundleError, match=r"contains 'thesis.tex', so it is not a bundle"):
        exporter.write_bundle(module, labels, tmp_path, image_files)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_bundle_without_golden_images_is_refused(
    module: "torch.nn.Module", labels: LabelsMapping, tmp_path: Path
) -> None:
    with pytest.raises(BundleError, match="at least one golden image"):
        exporter.write_bundle(module, labels, tmp_path / "export", [])


def test_wrong_number_of_classes_is_refused(labels: LabelsMapping, tmp_path: Path) -> None:
    module = small_module(num_classes=3)
    with pytest.raises(
        BundleError,
        match=r"maps \(2, 3, 12, 10\) to \(2, 3\); expected \(2, 4\) for the 4 classes",
    ):
        exporter.export_onnx(module, labels, tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []


def test_check_parity_detects_changed_weights(
    module: "torch.nn.Module", labels: LabelsMapping, tmp_path: Path
) -> None:
    exporter.export_onnx(module, labels, tmp_path / "model.onnx")
    with torch.no_grad():
        module[2].bias += 0.001
    with pytest.raises(BundleError, match="a logit differs from the module's by"):
        exporter.check_parity(module, labels, tmp_path / "model.onnx")


def test_new_bundle_replaces_old_bundle(
    module: "torch.nn.Module", labels: LabelsMapping, tmp_path: Path, image_files: list[Path]
) -> None:
    for images in (image_files, image_files[:2]):
        exporter.write_bundle(module, labels, tmp_path / "export", images)
    assert verify_bundle(tmp_path / "export").has_checked_hash
    assert Classifier(tmp_path / "export").labels == labels
    assert sorted(path.name for path in (tmp_path / "export" / "golden").iterdir()) == [
        "000.jpg",
        "001.jpg",
        "golden.json",
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["export"]


def test_weights_that_diverged_are_not_exported(
    module: "torch.nn.Module", labels: LabelsMapping, tmp_path: Path, image_files: list[Path]
) -> None:
    def run_model(images: np.ndarray) -> np.ndarray:
        return np.full((len(images), 4), np.nan, np.float32)

    with pytest.raises(BundleError, match=r"logits for the golden image .*0\.jpg are not finite"):
        write_golden(tmp_path, image_files, labels, run_model)
    with torch.no_grad():
        module[2].bias += float("nan")
    with pytest.raises(BundleError, match="differs from the module's by nan"):
        exporter.write_bundle(module, labels, tmp_path / "export", image_files)
    assert not (tmp_path / "export").exists()
