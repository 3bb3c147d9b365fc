from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from cls_data.annotations.reading import read_split
from cls_export import Classifier, LabelsMapping, Preprocessing
from cls_export.convert.exporter import write_bundle
from cls_train.stages.robustness import DEGRADATIONS, Degradation, degradation_curves


class FineStripes(nn.Module):
    """Answers `fine` where neighbouring columns differ, as they do in stripes of one pixel, and `flat` elsewhere."""

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


def test_accuracy_falls_by_the_degradation_that_takes_what_the_network_sees(
    striped: tuple[Classifier, Path],
) -> None:
    classifier, root = striped
    found = degradation_curves(classifier, read_split(root, "valid"))
    assert found["images"] == 6
    assert found["untouched"]["value"] == 1
    assert set(found["curves"]) == {each.title for each in DEGRADATIONS}
    assert all(len(curve["top1"]) == len(curve["levels"]) for curve in found["curves"].values())
    for title in ("Blur", "Fewer pixels"):
        assert found["curves"][title]["top1"][-1]["value"] == 0.5, title


@pytest.mark.parametrize("degradation", DEGRADATIONS, ids=lambda each: each.title)
def test_every_degradation_leaves_an_rgb_image_that_is_worse_by_level(
    degradation: Degradation,
) -> None:
    image = Image.effect_noise((40, 30), 90).convert("RGB")
    changed = [degradation.apply(image, level) for level in degradation.levels]
    assert all(each.mode == "RGB" for each in changed)
    if degradation.title == "Looser boxes":
        assert [each.width for each in changed] == sorted({each.width for each in changed})
        return
    assert all(each.size == image.size for each in changed)
    off = [
        float(np.abs(np.asarray(each, float) - np.asarray(image, float)).mean()) for each in changed
    ]
    assert off == sorted(off)
    assert off[0] > 0
