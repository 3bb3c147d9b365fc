from collections.abc import Iterator
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from cls_data import (
    AugmentationPipeline,
    BroadcastAugmentation,
    BroadcastDegradation,
    ColorJitter,
    GaussianBlur,
    GeometricTransform,
    LightAugmentation,
    PhotoAugmentation,
    RandomErasing,
)

PIPELINES = [LightAugmentation, BroadcastAugmentation, PhotoAugmentation]
ALL_STEPS: dict[str, Any] = {
    "probability": 1,
    "downscale_probability": 1,
    "noise_probability": 1,
    "jpeg_probability": 1,
}


@pytest.fixture
def restored_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def random_images(samples: int = 8, height: int = 24, width: int = 18, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    size = (samples, 3, height, width)
    return torch.randint(0, 256, size, dtype=torch.uint8, generator=generator)


def from_settings(pipeline: type[AugmentationPipeline], **settings: Any) -> AugmentationPipeline:
    """Build a pipeline from plain values, as a configuration does."""
    return pipeline(**settings)


def smallest_distance(images: Tensor) -> float:
    """Return the distance between the two most similar images."""
    distances = torch.cdist(images.flatten(1), images.flatten(1)) + torch.eye(len(images)) * 1e9
    return float(distances.min())


def test_pipeline_without_ops_changes_nothing() -> None:
    assert torch.equal(AugmentationPipeline()(random_images(), 0), random_images().float())


def test_pipeline_of_inactive_ops_changes_nothing() -> None:
    inactive = AugmentationPipeline(
        geometry=GeometricTransform(),
        color=ColorJitter(),
        blur=GaussianBlur(probability=0),
        broadcast=BroadcastDegradation(probability=0),
    )
    assert torch.equal(inactive(random_images(), 0), random_images().float())


@pytest.mark.parametrize("pipeline", PIPELINES)
def test_same_seed_gives_same_images(pipeline: type[AugmentationPipeline]) -> None:
    first, second = (pipeline()(random_images(), 5) for _ in range(2))
    assert torch.equal(first, second)
    assert not torch.equal(first, pipeline()(random_images(), 6))


@pytest.mark.parametrize("pipeline", PIPELINES)
def test_every_sample_has_its_own_parameters(pipeline: type[AugmentationPipeline]) -> None:
    same = random_images(1).expand(16, -1, -1, -1)
    assert smallest_distance(pipeline(clean=0)(same, 0)) > 100


def test_every_sample_has_its_own_noise_when_a_batch_is_chunked() -> None:
    noise = BroadcastDegradation(
        **{**ALL_STEPS, "downscale_probability": 0, "jpeg_probability": 0, "zoom_probability": 0},
        noise=(4, 4),
    )
    same = random_images(1, 64, 64).expand(150, -1, -1, -1)
    assert smallest_distance(AugmentationPipeline(broadcast=noise)(same, 0)) > 100


@pytest.mark.parametrize("pipeline", PIPELINES)
def test_a_sample_does_not_depend_on_other_samples(pipeline: type[AugmentationPipeline]) -> None:
    others = random_images()
    others[5] = 255 - others[5]
    one, other = pipeline()(random_images(), 3), pipeline()(others, 3)
    differs = (one != other).flatten(1).any(dim=1)
    assert differs.tolist() == [row == 5 for row in range(8)]


@pytest.mark.parametrize("pipeline", PIPELINES)
def test_clean_samples_are_bit_identical(pipeline: type[AugmentationPipeline]) -> None:
    images = random_images(600)
    same = (pipeline(clean=0.3)(images, 0) == images).flatten(1).all(dim=1)
    assert float(same.float().mean()) == pytest.approx(0.3, abs=0.06)
    assert torch.equal(pipeline(clean=1)(images, 0), images.float())


@pytest.mark.parametrize("samples", [1, 100])
@pytest.mark.parametrize("pipeline", PIPELINES)
def test_result_does_not_depend_on_the_number_of_threads(
    restored_threads: None, pipeline: type[AugmentationPipeline], samples: int
) -> None:
    results = []
    for number in (1, 2, 5):
        torch.set_num_threads(number)
        results.append(
            from_settings(pipeline, clean=0, broadcast=ALL_STEPS)(random_images(samples, 64, 64), 1)
        )
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
@pytest.mark.parametrize(
    "pipeline",
    [
        *(pipeline() for pipeline in PIPELINES),
        AugmentationPipeline(blur=GaussianBlur(probability=0.5)),
        AugmentationPipeline(broadcast=BroadcastDegradation(**ALL_STEPS)),
        AugmentationPipeline(erasing=RandomErasing(probability=0.5), clean=0.5),
    ],
    ids=lambda pipeline: "+".join(
        type(pipeline).__name__ if pipeline.geometry else sorted(pipeline.model_fields_set)
    ),
)
def test_input_images_stay_unchanged(pipeline: AugmentationPipeline, dtype: torch.dtype) -> None:
    images = random_images(40).to(dtype)
    before = images.clone()
    changed = pipeline(images, 0)
    assert torch.equal(images, before)
    assert torch.equal(changed, pipeline(before.to(torch.uint8), 0))


@pytest.mark.parametrize("pipeline", PIPELINES)
def test_draws_do_not_depend_on_the_size_of_the_images(
    pipeline: type[AugmentationPipeline],
) -> None:
    images = random_images(200, 9, 50)
    enlarged = images.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    augmentation = pipeline(clean=0.5)
    clean = (augmentation(images, 4) == images).flatten(1).all(dim=1)
    enlarged_clean = (augmentation(enlarged, 4) == enlarged).flatten(1).all(dim=1)
    assert torch.equal(clean, enlarged_clean)


@given(seed=st.integers(0, 2**62))
@settings(max_examples=20, deadline=None)
def test_draws_do_not_depend_on_pixels(seed: int) -> None:
    """Resampling is linear: the same draws turn inverted images into the inverted result."""
    assert BroadcastAugmentation().geometry is not None
    pipeline = AugmentationPipeline(geometry=BroadcastAugmentation().geometry)
    inverted = pipeline(255 - random_images(), seed)
    assert torch.allclose(inverted, 255 - pipeline(random_images(), seed), atol=0.01)


_share = st.floats(0, 1)
_shares = st.tuples(_share, _share).map(lambda pair: (min(pair), max(pair)))
_factors = st.tuples(st.floats(0.2, 1), st.floats(1, 4))
_pipelines = st.builds(
    AugmentationPipeline,
    clean=_share,
    geometry=st.none()
    | st.builds(
        GeometricTransform,
        rotation=st.floats(0, 180),
        translation=_share,
        zoom=_factors,
        shear=st.floats(0, 89),
        perspective=_share,
        crop_area=_shares,
        crop_aspect=_factors,
        horizontal_flip=_share,
    ),
    color=st.none()
    | st.builds(ColorJitter, brightness=_share, contrast=_share, saturation=_share, gray=_share),
    blur=st.none()
    | st.builds(
        GaussianBlur, probability=_share, sigma=st.tuples(st.floats(0.001, 0.1), st.floats(0.1, 2))
    ),
    broadcast=st.none()
    | st.builds(
        BroadcastDegradation,
        probability=_share,
        zoom=_factors,
        downscale=_shares,
        noise=st.tuples(st.floats(0.1, 5), st.floats(5, 200)),
        jpeg_quality=st.tuples(st.integers(1, 50), st.integers(50, 100)),
    ),
    erasing=st.none()
    | st.builds(
        RandomErasing, probability=_share, area=st.tuples(st.floats(0.01, 0.5), st.floats(0.5, 1))
    ),
)


@given(
    pipeline=_pipelines,
    height=st.integers(1, 20),
    width=st.integers(1, 20),
    seed=st.integers(0, 2**62),
)
@settings(max_examples=100, deadline=None)
def test_levels_stay_between_0_and_255_for_any_settings(
    pipeline: AugmentationPipeline, height: int, width: int, seed: int
) -> None:
    images = random_images(3, height, width, seed)
    changed = pipeline(images, seed)
    assert changed.dtype == torch.float32
    assert changed.shape == images.shape
    assert -0.001 <= changed.min() <= changed.max() <= 255.001


def test_missing_op_settings_keep_the_pipeline_defaults() -> None:
    pipeline = from_settings(BroadcastAugmentation, geometry={"rotation": 4})
    assert pipeline.geometry is not None
    assert (pipeline.geometry.rotation, pipeline.geometry.shear, pipeline.geometry.crop_area) == (
        4,
        8,
        (0.8, 1),
    )
    assert pipeline.color == BroadcastAugmentation().color


def test_op_set_to_none_is_left_out() -> None:
    pipeline = BroadcastAugmentation(
        clean=0, geometry=None, broadcast=None, color=None, blur=None, erasing=None
    )
    assert torch.equal(pipeline(random_images(), 0), random_images().float())


def test_settings_of_an_op_without_pipeline_default_use_the_op_defaults() -> None:
    assert from_settings(LightAugmentation, blur={"probability": 0.7}).blur == GaussianBlur(
        probability=0.7
    )


@pytest.mark.parametrize(
    ("wrong", "name"),
    [
        ({"clean": 1.1}, "clean"),
        ({"geometry": {"horizontal_flip": 1.5}}, "geometry.horizontal_flip"),
        ({"geometry": {"zoom": (0, 1)}}, "geometry.zoom"),
        ({"geometry": {"zoom": (1, float("inf"))}}, "geometry.zoom"),
        ({"geometry": {"crop_area": (0.9, 0.8)}}, "geometry.crop_area"),
        ({"geometry": {"shear": 90}}, "geometry.shear"),
        ({"color": {"contrast": 2}}, "color.contrast"),
        ({"blur": {"sigma": (0.2, 0.1)}}, "blur.sigma"),
        ({"broadcast": {"jpeg_quality": (0, 30)}}, "broadcast.jpeg_quality"),
        ({"broadcast": {"noise": (-1, 3)}}, "broadcast.noise"),
        ({"erasing": {"probability": -0.1}}, "erasing.probability"),
        ({"erasing": {"area": (0, 0.2)}}, "erasing.area"),
        ({"geometry": {"rotatoin": 4}}, "geometry.rotatoin"),
        ({"sharpness": {}}, "sharpness"),
    ],
)
def test_unknown_or_out_of_range_setting_is_rejected_by_name(
    wrong: dict[str, Any], name: str
) -> None:
    with pytest.raises(ValueError, match=name):
        from_settings(BroadcastAugmentation, **wrong)


def test_flips_are_off_by_default_in_pipelines_for_digits() -> None:
    for pipeline in (LightAugmentation(), BroadcastAugmentation()):
        assert pipeline.geometry is not None
        assert pipeline.geometry.horizontal_flip == 0
        assert pipeline.label_warnings(["0", "23"]) == []
    assert GeometricTransform().horizontal_flip == 0


@pytest.mark.parametrize(
    ("risky", "safe"),
    [
        ({"horizontal_flip": 0.5}, {"horizontal_flip": 0}),
        ({"rotation": 46}, {"rotation": 45}),
        ({"crop_area": (0.4, 1)}, {"crop_area": (0.5, 1)}),
    ],
)
def test_label_warnings_name_risky_settings_only_for_digit_classes(
    risky: dict[str, Any], safe: dict[str, Any]
) -> None:
    (warning,) = from_settings(LightAugmentation, geometry=risky).label_warnings(["", "00", "23"])
    assert warning.startswith(f"augmentation.geometry.{next(iter(risky))}=")
    assert from_settings(LightAugmentation, geometry=risky).label_warnings(["cat", "dog", ""]) == []
    assert from_settings(LightAugmentation, geometry=safe).label_warnings(["00", "23"]) == []
    assert LightAugmentation(geometry=None).label_warnings(["00", "23"]) == []


def test_matrices_cached_in_inference_mode_work_in_training() -> None:
    pipeline = AugmentationPipeline(
        blur=GaussianBlur(probability=1), broadcast=BroadcastDegradation(**ALL_STEPS)
    )
    images = random_images(4, 23, 19)
    with torch.inference_mode():
        first = pipeline(images, 0)
    second = pipeline(images, 0)
    assert torch.equal(first, second)
    assert not second.is_inference()
