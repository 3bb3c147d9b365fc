from collections.abc import Iterator
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from cls_data import (
    AugmentationPipeline,
    Blur,
    Broadcast,
    BroadcastAugmentation,
    ColorJitter,
    Geometry,
    LightAugmentation,
    PhotoAugmentation,
    RandomErasing,
)

RECIPES = [LightAugmentation, BroadcastAugmentation, PhotoAugmentation]
WHOLE: dict[str, Any] = {
    "probability": 1,
    "downscale_probability": 1,
    "noise_probability": 1,
    "jpeg_probability": 1,
}


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def levels(samples: int = 8, height: int = 24, width: int = 18, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(
        0, 256, (samples, 3, height, width), dtype=torch.uint8, generator=generator
    )


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def from_yaml(recipe: type[AugmentationPipeline], **settings: Any) -> AugmentationPipeline:
    """Make a recipe of plain values, as a configuration gives them."""
    return recipe(**settings)


def closest(images: Tensor) -> float:
    """Return the distance of the two images that differ the least."""
    distances = torch.cdist(images.flatten(1), images.flatten(1)) + torch.eye(len(images)) * 1e9
    return float(distances.min())


def test_a_recipe_without_parts_changes_nothing() -> None:
    assert torch.equal(AugmentationPipeline()(levels(), seeded(0)), levels().float())


def test_no_change_asked_for_is_no_change() -> None:
    still = AugmentationPipeline(
        geometry=Geometry(),
        color=ColorJitter(),
        blur=Blur(probability=0),
        broadcast=Broadcast(probability=0),
    )
    assert torch.allclose(still(levels(), seeded(0)), levels().float(), atol=0.01)


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_same_seed_gives_the_same_images(recipe: type[AugmentationPipeline]) -> None:
    first, second = (recipe()(levels(), seeded(5)) for _ in range(2))
    assert torch.equal(first, second)
    assert not torch.equal(first, recipe()(levels(), seeded(6)))


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_sample_has_parameters_of_its_own(recipe: type[AugmentationPipeline]) -> None:
    same = levels(1).expand(16, -1, -1, -1)
    assert closest(recipe(clean=0)(same, seeded(0))) > 100


def test_every_sample_has_noise_of_its_own_in_a_batch_that_is_changed_piece_by_piece() -> None:
    noise = Broadcast(
        **{**WHOLE, "downscale_probability": 0, "jpeg_probability": 0, "zoom_probability": 0},
        noise=(4, 4),
    )
    same = levels(1, 64, 64).expand(150, -1, -1, -1)
    assert closest(AugmentationPipeline(broadcast=noise)(same, seeded(0))) > 100


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_sample_does_not_see_its_neighbours(recipe: type[AugmentationPipeline]) -> None:
    others = levels()
    others[5] = 255 - others[5]
    one, other = recipe()(levels(), seeded(3)), recipe()(others, seeded(3))
    differs = (one != other).flatten(1).any(dim=1)
    assert differs.tolist() == [row == 5 for row in range(8)]


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_clean_share_passes_bit_for_bit(recipe: type[AugmentationPipeline]) -> None:
    images = levels(600)
    same = (recipe(clean=0.3)(images, seeded(0)) == images).flatten(1).all(dim=1)
    assert float(same.float().mean()) == pytest.approx(0.3, abs=0.06)
    assert torch.equal(recipe(clean=1)(images, seeded(0)), images.float())


@pytest.mark.parametrize("samples", [1, 100])
@pytest.mark.parametrize("recipe", RECIPES)
def test_the_number_of_threads_does_not_matter(
    threads: None, recipe: type[AugmentationPipeline], samples: int
) -> None:
    results = []
    for number in (1, 2, 5):
        torch.set_num_threads(number)
        results.append(
            from_yaml(recipe, clean=0, broadcast=WHOLE)(levels(samples, 64, 64), seeded(1))
        )
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
@pytest.mark.parametrize(
    "recipe",
    [
        *(recipe() for recipe in RECIPES),
        AugmentationPipeline(blur=Blur(probability=0.5)),
        AugmentationPipeline(broadcast=Broadcast(**WHOLE)),
        AugmentationPipeline(erasing=RandomErasing(probability=0.5), clean=0.5),
    ],
    ids=lambda recipe: "+".join(
        type(recipe).__name__ if recipe.geometry else sorted(recipe.model_fields_set)
    ),
)
def test_the_images_given_are_never_changed(
    recipe: AugmentationPipeline, dtype: torch.dtype
) -> None:
    images = levels(40).to(dtype)
    before = images.clone()
    changed = recipe(images, seeded(0))
    assert torch.equal(images, before)
    assert torch.equal(changed, recipe(before.to(torch.uint8), seeded(0)))


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_stream_of_draws_is_the_same_for_any_image_of_any_size(
    recipe: type[AugmentationPipeline],
) -> None:
    generators = []
    for images in (
        levels(),
        255 - levels(),
        levels(height=64, width=64),
        levels(height=9, width=50),
    ):
        generators.append(seeded(4))
        recipe()(images, generators[-1])
    assert len({bytes(generator.get_state().tolist()) for generator in generators}) == 1


@given(seed=st.integers(0, 2**62))
@settings(max_examples=20, deadline=None)
def test_draws_do_not_depend_on_what_the_images_show(seed: int) -> None:
    """Geometry is linear: of inverted images it makes the inverse, if it moves them alike."""
    assert BroadcastAugmentation().geometry is not None
    recipe = AugmentationPipeline(geometry=BroadcastAugmentation().geometry)
    inverted = recipe(255 - levels(), seeded(seed))
    assert torch.allclose(inverted, 255 - recipe(levels(), seeded(seed)), atol=0.01)


_share = st.floats(0, 1)
_shares = st.tuples(_share, _share).map(lambda pair: (min(pair), max(pair)))
_factors = st.tuples(st.floats(0.2, 1), st.floats(1, 4))
_recipes = st.builds(
    AugmentationPipeline,
    clean=_share,
    geometry=st.none()
    | st.builds(
        Geometry,
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
        Blur, probability=_share, sigma=st.tuples(st.floats(0.001, 0.1), st.floats(0.1, 2))
    ),
    broadcast=st.none()
    | st.builds(
        Broadcast,
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
    recipe=_recipes, height=st.integers(1, 20), width=st.integers(1, 20), seed=st.integers(0, 2**62)
)
@settings(max_examples=100, deadline=None)
def test_levels_stay_between_0_and_255_whatever_the_settings(
    recipe: AugmentationPipeline, height: int, width: int, seed: int
) -> None:
    images = levels(3, height, width, seed)
    changed = recipe(images, seeded(seed))
    assert changed.dtype == torch.float32
    assert changed.shape == images.shape
    assert -0.001 <= changed.min() <= changed.max() <= 255.001


def test_settings_that_are_not_given_are_the_recipes_own() -> None:
    recipe = from_yaml(BroadcastAugmentation, geometry={"rotation": 4})
    assert recipe.geometry is not None
    assert (recipe.geometry.rotation, recipe.geometry.shear, recipe.geometry.crop_area) == (
        4,
        8,
        (0.8, 1),
    )
    assert recipe.color == BroadcastAugmentation().color


def test_a_part_that_is_none_is_left_out() -> None:
    recipe = BroadcastAugmentation(
        clean=0, geometry=None, broadcast=None, color=None, blur=None, erasing=None
    )
    assert torch.equal(recipe(levels(), seeded(0)), levels().float())


def test_a_part_that_the_recipe_lacks_has_the_parts_own_settings() -> None:
    assert from_yaml(LightAugmentation, blur={"probability": 0.7}).blur == Blur(probability=0.7)


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
def test_a_setting_that_is_unknown_or_out_of_range_is_refused_by_name(
    wrong: dict[str, Any], name: str
) -> None:
    with pytest.raises(ValueError, match=name):
        from_yaml(BroadcastAugmentation, **wrong)


def test_mirroring_is_off_unless_asked_for_where_digits_are_read() -> None:
    for recipe in (LightAugmentation(), BroadcastAugmentation()):
        assert recipe.geometry is not None
        assert recipe.geometry.horizontal_flip == 0
        assert recipe.cautions(["0", "23"]) == []
    assert Geometry().horizontal_flip == 0


@pytest.mark.parametrize(
    ("risky", "safe"),
    [
        ({"horizontal_flip": 0.5}, {"horizontal_flip": 0}),
        ({"rotation": 46}, {"rotation": 45}),
        ({"crop_area": (0.4, 1)}, {"crop_area": (0.5, 1)}),
    ],
)
def test_what_turns_a_digit_into_another_is_said_where_classes_are_digits(
    risky: dict[str, Any], safe: dict[str, Any]
) -> None:
    (caution,) = from_yaml(LightAugmentation, geometry=risky).cautions(["", "00", "23"])
    assert caution.startswith(f"augmentation.geometry.{next(iter(risky))}=")
    assert from_yaml(LightAugmentation, geometry=risky).cautions(["cat", "dog", ""]) == []
    assert from_yaml(LightAugmentation, geometry=safe).cautions(["00", "23"]) == []
    assert LightAugmentation(geometry=None).cautions(["00", "23"]) == []


def test_what_is_kept_from_inference_mode_serves_training_too() -> None:
    recipe = AugmentationPipeline(blur=Blur(probability=1), broadcast=Broadcast(**WHOLE))
    images = levels(4, 23, 19)
    with torch.inference_mode():
        first = recipe(images, seeded(0))
    second = recipe(images, seeded(0))
    assert torch.equal(first, second)
    assert not second.is_inference()
