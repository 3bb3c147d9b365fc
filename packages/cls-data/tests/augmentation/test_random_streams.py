"""Every op draws from its own stream: no op changes the parameters of another."""

import itertools
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor

from cls_data import (
    AugmentationOp,
    AugmentationPipeline,
    AugmentationStage,
    BroadcastAugmentation,
    BroadcastDegradation,
    ColorJitter,
    GaussianBlur,
    GeometricTransform,
    LightAugmentation,
    MixupCutmix,
    OpParameters,
    ParamSampler,
    PhotoAugmentation,
    RandomErasing,
)
from cls_data.augmentation.ops import change_selected


class Invert(AugmentationOp):
    """An op outside cls_data: inverts the levels of some samples."""

    stage: ClassVar[AugmentationStage] = AugmentationStage.COLOR

    probability: float = 0.5

    def draw(self, sampler: ParamSampler) -> OpParameters:
        return {"selected": sampler.bernoulli(self.probability)}

    def apply(self, images: Tensor, params: OpParameters) -> Tensor:
        return change_selected(images, params["selected"], lambda some: 255 - some)


class InvertingAugmentation(LightAugmentation):
    """LightAugmentation with one more op, added by one line."""

    invert: Invert | None = Invert(probability=0.3)


PIPELINES = [LightAugmentation, BroadcastAugmentation, PhotoAugmentation, InvertingAugmentation]
INACTIVE_OPS: dict[str, AugmentationOp] = {
    "geometry": GeometricTransform(),
    "color": ColorJitter(),
    "blur": GaussianBlur(probability=0),
    "broadcast": BroadcastDegradation(probability=0),
    "erasing": RandomErasing(probability=0),
}
ACTIVE_OPS: dict[str, AugmentationOp] = {
    "geometry": GeometricTransform(rotation=20, crop_area=(0.5, 1), perspective=0.3),
    "color": ColorJitter(brightness=0.5, gray=0.5),
    "blur": GaussianBlur(probability=0.7),
    "broadcast": BroadcastDegradation(probability=1),
    "erasing": RandomErasing(probability=0.9),
}


@pytest.fixture(params=[8, 90], ids=["one_chunk", "two_chunks"])
def images(request: pytest.FixtureRequest) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    size = (request.param, 3, 64, 48)
    return torch.randint(0, 256, size, dtype=torch.uint8, generator=generator)


def assert_same_draws(first: OpParameters, second: OpParameters) -> None:
    assert first.keys() == second.keys()
    for name, values in first.items():
        assert np.array_equal(values, second[name])


@pytest.mark.parametrize("name", INACTIVE_OPS)
@pytest.mark.parametrize("pipeline", PIPELINES)
def test_adding_an_op_at_probability_0_leaves_images_bit_identical(
    pipeline: type[AugmentationPipeline], name: str, images: Tensor
) -> None:
    without: Any = {name: None}
    inactive: Any = {name: INACTIVE_OPS[name]}
    assert torch.equal(pipeline(**without)(images, 5), pipeline(**inactive)(images, 5))


@pytest.mark.parametrize(("name", "other"), list(itertools.permutations(INACTIVE_OPS, 2)))
def test_adding_an_op_at_probability_0_leaves_a_single_op_bit_identical(
    name: str, other: str, images: Tensor
) -> None:
    alone: Any = {other: ACTIVE_OPS[other]}
    both: Any = {**alone, name: INACTIVE_OPS[name]}
    expected = AugmentationPipeline(**alone)(images, 5)
    assert torch.equal(AugmentationPipeline(**both)(images, 5), expected)


@pytest.mark.parametrize("pipeline", PIPELINES)
def test_adding_a_users_op_at_probability_0_leaves_images_bit_identical(
    pipeline: type[AugmentationPipeline], images: Tensor
) -> None:
    extended = pipeline(extra_ops={"inactive": Invert(probability=0)})
    assert torch.equal(extended(images, 5), pipeline()(images, 5))


@pytest.mark.parametrize("name", ACTIVE_OPS)
@pytest.mark.parametrize("pipeline", PIPELINES)
def test_changing_or_removing_an_op_leaves_the_draws_of_the_others_unchanged(
    pipeline: type[AugmentationPipeline], name: str
) -> None:
    before = pipeline().draw(50, 5)
    for op in (None, ACTIVE_OPS[name]):
        settings: Any = {name: op}
        after = pipeline(**settings).draw(50, 5)
        assert before.keys() - {name} == after.keys() - {name}
        for other in before.keys() - {name}:
            assert_same_draws(before[other], after[other])


@pytest.mark.parametrize(
    "change",
    [
        {"rotation": 90},
        {"horizontal_flip": 0.5},
        {"vertical_flip": 0.5},
        {"perspective": 0.4},
        {"crop_area": (0.2, 1)},
    ],
    ids=lambda change: next(iter(change)),
)
def test_changing_one_geometric_setting_leaves_the_draws_of_the_others_unchanged(
    change: dict[str, Any],
) -> None:
    keys = {
        "rotation": "degrees",
        "horizontal_flip": "mirrored",
        "vertical_flip": "upside_down",
        "perspective": "corners",
        "crop_area": "crop_area",
    }
    op = GeometricTransform(rotation=8, translation=0.06, zoom=(0.8, 1.2), shear=6)
    changed = op.model_copy(update=change)
    before = AugmentationPipeline(geometry=op).draw(50, 5)["geometry"]
    after = AugmentationPipeline(geometry=changed).draw(50, 5)["geometry"]
    changed_key = keys[next(iter(change))]
    assert not np.array_equal(before.pop(changed_key), after.pop(changed_key))
    assert_same_draws(before, after)


def test_the_clean_share_does_not_change_the_draws_of_the_ops(images: Tensor) -> None:
    augmented = BroadcastAugmentation(clean=0)(images, 5)
    partly_clean = BroadcastAugmentation(clean=0.5)(images, 5)
    clean = (partly_clean == images).flatten(1).all(dim=1)
    assert clean.any()
    assert torch.equal(partly_clean[~clean], augmented[~clean])


def test_different_ops_and_seeds_draw_different_values() -> None:
    pipeline = AugmentationPipeline(
        blur=GaussianBlur(),
        extra_ops={"second_blur": GaussianBlur()},
    )
    sigmas = []
    for seed in (5, 6):
        for params in pipeline.draw(50, seed).values():
            sigmas.append(params["sigma"])
    assert len(sigmas) == 4
    for i, sigma in enumerate(sigmas):
        for other in sigmas[:i]:
            assert not np.isclose(sigma, other).any()


def test_mixing_draws_do_not_depend_on_the_augmentation(images: Tensor) -> None:
    """Mixing has a stream of the batch seed too, so its partners are the same for any pipeline."""
    labels = torch.arange(len(images)) % 5
    targets = []
    for pipeline in (AugmentationPipeline(), BroadcastAugmentation()):
        augmented = pipeline(images, 5)
        targets.append(MixupCutmix(probability=1)(augmented, labels, 5, 5)[1])
    assert torch.equal(targets[0], targets[1])


def test_draws_do_not_depend_on_the_global_random_state(images: Tensor) -> None:
    first = BroadcastAugmentation()(images, 5)
    torch.manual_seed(123)
    np.random.seed(123)
    assert torch.equal(BroadcastAugmentation()(images, 5), first)


def test_an_op_of_another_module_takes_part_by_one_field(images: Tensor) -> None:
    pipeline = InvertingAugmentation()
    assert list(pipeline.ops()) == ["geometry", "color", "invert", "erasing"]
    light = LightAugmentation(erasing=None)
    inverting = InvertingAugmentation(erasing=None)
    inverted = inverting.draw(len(images), 5)["invert"]["selected"]
    expected = light(images, 5)
    expected[torch.from_numpy(inverted)] = 255 - expected[torch.from_numpy(inverted)]
    assert torch.equal(inverting(images, 5), expected)


def test_an_extra_op_draws_like_the_same_op_in_a_field_of_that_name(images: Tensor) -> None:
    by_setting = LightAugmentation(extra_ops={"invert": Invert(probability=0.3)})
    assert torch.equal(by_setting(images, 5), InvertingAugmentation()(images, 5))


def test_an_extra_op_of_none_is_left_out(images: Tensor) -> None:
    pipeline = LightAugmentation(extra_ops={"invert": None})
    assert list(pipeline.ops()) == ["geometry", "color", "erasing"]


@pytest.mark.parametrize(
    ("extra_ops", "message"),
    [
        ({"blur": GaussianBlur()}, "'blur' is a setting of LightAugmentation; choose another name"),
        ({"clean": GaussianBlur()}, "'clean' is a setting of LightAugmentation"),
        ({"rain": {"probability": 1}}, "extra_ops.rain\n.*instance of AugmentationOp"),
    ],
)
def test_extra_ops_reject_names_of_settings_and_values_that_are_not_ops(
    extra_ops: Any, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        LightAugmentation(extra_ops=extra_ops)
