import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from cls_data import MixupCutmix
from cls_data.augmentation.mixup import box_masks

CLASSES = 6


def batch(samples: int, height: int = 12, width: int = 9) -> tuple[Tensor, Tensor]:
    """Return images with one plane per class: 1 for the image's class, 0 for the others."""
    labels = torch.arange(samples) % CLASSES
    planes = functional.one_hot(labels, CLASSES).float()
    return planes[:, :, None, None].expand(-1, -1, height, width).contiguous(), labels


@given(
    samples=st.integers(1, 20),
    probability=st.floats(0, 1),
    cutmix=st.floats(0, 1),
    alpha=st.floats(0.05, 5),
    seed=st.integers(0, 2**62),
)
@settings(deadline=None)
def test_targets_equal_the_share_of_each_class_in_the_image(
    samples: int, probability: float, cutmix: float, alpha: float, seed: int
) -> None:
    images, labels = batch(samples)
    mixed, targets = MixupCutmix(probability=probability, cutmix=cutmix, alpha=alpha)(
        images, labels, CLASSES, seed
    )
    assert (targets.dtype, targets.shape) == (torch.float32, (samples, CLASSES))
    assert torch.allclose(targets.sum(dim=1), torch.ones(samples), atol=1e-6)
    assert torch.allclose(mixed.mean(dim=(2, 3)), targets, atol=1e-5)


def test_mixing_with_probability_0_changes_nothing() -> None:
    images, labels = batch(9)
    mixed, targets = MixupCutmix(probability=0)(images, labels, CLASSES, 0)
    assert torch.equal(mixed, images)
    assert torch.equal(targets, functional.one_hot(labels, CLASSES).float())


def test_samples_are_mixed_and_cut_with_the_given_probabilities() -> None:
    images, labels = batch(5000, 8, 8)
    mixed, _ = MixupCutmix(probability=0.6, cutmix=0.25, alpha=5)(images, labels, CLASSES, 0)
    blended = ((mixed > 0) & (mixed < 1)).flatten(1).any(dim=1)
    cut = ((mixed != images).flatten(1).any(dim=1)) & ~blended
    other = (CLASSES - 1) / CLASSES  # mixing with a partner of the same class changes nothing
    assert float(blended.float().mean()) == pytest.approx(0.6 * 0.75 * other, abs=0.03)
    assert float(cut.float().mean()) == pytest.approx(0.6 * 0.25 * other, abs=0.03)


def test_every_pair_has_its_own_proportion() -> None:
    images, labels = batch(12)
    _, targets = MixupCutmix(probability=1, cutmix=0, alpha=1)(images, labels, CLASSES, 0)
    shares = targets.amax(dim=1)
    assert len(set(shares[shares < 1].tolist())) == int((shares < 1).sum()) > 5


def test_cutmix_takes_one_rectangle_from_the_partner() -> None:
    generator = torch.Generator().manual_seed(1)
    images = torch.rand(10, 3, 16, 20, generator=generator)
    mixed, targets = MixupCutmix(probability=1, cutmix=1, alpha=2)(images, torch.arange(10), 10, 1)
    for row, image in enumerate(mixed):
        (partner,) = [other for other in targets[row].nonzero()[:, 0].tolist() if other != row] or [
            row
        ]
        own, theirs = (image == images[row]).all(dim=0), (image == images[partner]).all(dim=0)
        assert (own | theirs).all()
        assert float(own.float().mean()) == pytest.approx(float(targets[row, row]), abs=1e-5)
        if partner != row:
            rows, columns = theirs.any(dim=1).sum(), theirs.any(dim=0).sum()
            assert theirs.sum() == rows * columns


@given(
    area=st.floats(0, 1),
    x=st.floats(0, 1),
    y=st.floats(0, 1),
    height=st.integers(1, 60),
    width=st.integers(1, 60),
)
def test_box_masks_have_the_given_area_unless_clipped_by_the_border(
    area: float, x: float, y: float, height: int, width: int
) -> None:
    box = box_masks(torch.tensor([area]), torch.tensor([x]), torch.tensor([y]), height, width)[0]
    rows, columns = box.amax(dim=1).sum(), box.amax(dim=0).sum()
    assert box.shape == (height, width)
    assert box.sum() == rows * columns
    reach = area**0.5 / 2
    high, wide = (
        (min(1, center + reach) - max(0, center - reach)) * length
        for length, center in ((height, y), (width, x))
    )
    if box.any():
        assert (float(rows), float(columns)) == pytest.approx((high, wide), abs=1.001)
    else:
        assert min(high, wide) <= 1.001


def test_same_seed_gives_same_result_and_inputs_stay_unchanged() -> None:
    images, labels = batch(8)
    before = images.clone(), labels.clone()
    first, second = (MixupCutmix(probability=1)(images, labels, CLASSES, 3) for _ in range(2))
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[1], second[1])
    assert not torch.equal(first[1], MixupCutmix(probability=1)(images, labels, CLASSES, 4)[1])
    assert torch.equal(images, before[0])
    assert torch.equal(labels, before[1])
    assert labels.dtype == torch.int64


def test_cross_entropy_of_targets_is_the_weighted_sum_over_both_labels() -> None:
    images, labels = batch(8)
    _, targets = MixupCutmix(probability=1, alpha=1)(images, labels, CLASSES, 0)
    logits = torch.randn(8, CLASSES, generator=torch.Generator().manual_seed(1))
    for row in range(8):
        both = targets[row].nonzero()[:, 0]
        by_label = functional.cross_entropy(
            logits[[row]].expand(len(both), -1), both, reduction="none"
        )
        expected = (by_label * targets[row, both]).sum()
        assert torch.allclose(
            functional.cross_entropy(logits[[row]], targets[[row]]), expected, atol=1e-6
        )


def test_a_batch_of_one_is_mixed_with_itself() -> None:
    images, labels = batch(1)
    mixed, targets = MixupCutmix(probability=1)(images, labels, CLASSES, 0)
    assert torch.allclose(mixed, images)
    assert torch.allclose(targets, functional.one_hot(labels, CLASSES).float())


@pytest.mark.parametrize("name", ["probability", "cutmix", "alpha"])
def test_out_of_range_setting_is_rejected_by_name(name: str) -> None:
    with pytest.raises(ValueError, match=name):
        MixupCutmix(**{name: -0.1})
