from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from cls_data.annotations.reading import read_split
from cls_export import Classifier, LabelsMapping, Preprocessing
from cls_export.convert.exporter import write_bundle
from cls_train.stages.robustness import DEGRADATIONS, Degradation, compute_robustness_curves


class FineStripes(nn.Module):
    """Predicts `fine` if neighboring columns differ, as in one-pixel stripes, else `flat`."""

    def forward(self, images: Tensor) -> Tensor:
        contrast = (images[:, :, :, 1:] - images[:, :, :, :-1]).abs().mean(dim=(1, 2, 3))
        return torch.stack([contrast, torch.full_like(contrast, 0.5)], dim=1)


@pytest.fixture
def striped(tmp_path: Path) -> tuple[Classifier, Path]:
    folder = tmp_path / "data/valid"
    folder.mkdir(parents=True)
    lines = []
    for row, label in enumerate(["fine", "flat"] * 3):
        pixels = np.full((16, 16, 3), 90 + row, np.uint8)
        if label == "fine":
            pixels[:, ::2] = 250
        Image.fromarray(pixels).save(folder / f"{row}.png")
        lines.append(f'{{"image": "{row}.png", "suffix": "{label}"}}\n')
    (folder / "annotations.jsonl").write_text("".join(lines))
    labels = LabelsMapping.from_classes(
        {"fine": 0, "flat": 1}, Preprocessing(size=(16, 16), mean=(0.5,) * 3, std=(0.5,) * 3)
    )
    write_bundle(FineStripes().eval(), labels, tmp_path / "bundle", [folder / "0.png"])
    return Classifier(tmp_path / "bundle"), tmp_path / "data"


def test_accuracy_falls_when_the_degradation_removes_the_stripes(
    striped: tuple[Classifier, Path],
) -> None:
    classifier, root = striped
    curves = compute_robustness_curves(classifier, read_split(root, "valid"))
    assert curves["images"] == 6
    assert curves["untouched"]["value"] == 1
    assert set(curves["curves"]) == {each.title for each in DEGRADATIONS}
    assert all(len(curve["top1"]) == len(curve["levels"]) for curve in curves["curves"].values())
    for title in ("Blur", "Lower resolution"):
        assert curves["curves"][title]["top1"][-1]["value"] == 0.5, title


@pytest.mark.parametrize("degradation", DEGRADATIONS, ids=lambda each: each.title)
def test_every_degradation_returns_rgb_and_grows_with_the_level(
    degradation: Degradation,
) -> None:
    image = Image.effect_noise((40, 30), 90).convert("RGB")
    changed = [degradation.apply(image, level) for level in degradation.levels]
    assert all(each.mode == "RGB" for each in changed)
    if degradation.title == "Looser boxes":
        assert [each.width for each in changed] == sorted({each.width for each in changed})
        return
    assert all(each.size == image.size for each in changed)
    differences = [
        float(np.abs(np.asarray(each, float) - np.asarray(image, float)).mean()) for each in changed
    ]
    assert differences == sorted(differences)
    assert differences[0] > 0


def test_16_bit_images_are_decoded_like_model_input(
    striped: tuple[Classifier, Path], tmp_path: Path
) -> None:
    classifier, _ = striped
    ramp = np.linspace(0, 65535, 256 * 256).reshape(256, 256).astype(np.uint16)
    folder = tmp_path / "ramp/valid"
    folder.mkdir(parents=True)
    Image.fromarray(ramp).save(folder / "0.png")
    (folder / "annotations.jsonl").write_text('{"image": "0.png", "suffix": "flat"}\n')
    means: list[float] = []

    def record_mean(image: Image.Image, level: float) -> Image.Image:
        means.append(float(np.asarray(image).mean()))
        return image

    degradation = Degradation("none", "", (1,), record_mean)
    records = read_split(tmp_path / "ramp", "valid")
    compute_robustness_curves(classifier, records, [degradation])
    assert means == [pytest.approx(127.5)]
