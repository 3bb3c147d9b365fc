import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from cls_export import LabelsMapping
from cls_models import BackboneError
from cls_train.builders import build_data, build_preprocessing
from cls_train.composition.resolve_preprocessing import choose_size, resolve_preprocessing
from cls_train.errors import ConfigError

sides = st.lists(st.integers(1, 4000), min_size=1, max_size=9)


@given(sides, sides)
def test_choose_size_rounds_the_median_up_to_16_with_a_maximum_of_224(
    heights: list[int], widths: list[int]
) -> None:
    for fitted, given_sides in zip(choose_size(heights, widths), (heights, widths), strict=True):
        median = int(np.median(given_sides))
        assert fitted % 16 == 0
        assert (median <= fitted < median + 16) or fitted == 224 < median


def test_choose_size_returns_48_by_32_for_crops_of_40_by_29() -> None:
    assert choose_size([40], [29]) == (48, 32)


def test_auto_estimates_size_mean_and_std_from_the_training_images(
    composed: Any, data_root: Path
) -> None:
    config = resolve_preprocessing(
        composed("data=jsonl", f"data.root={data_root}", "preprocessing=auto")
    )
    images = [
        np.asarray(Image.open(path)) / 255 for path in sorted((data_root / "train").glob("*.png"))
    ]
    pixels = np.concatenate(
        [image.reshape(-1, 3) for image in images]
    )  # all images are of one size
    assert config.preprocessing["size"] == [32, 16]
    assert np.allclose(config.preprocessing["mean"], pixels.mean(axis=0), atol=1e-3)
    assert np.allclose(config.preprocessing["std"], pixels.std(axis=0), atol=1e-3)


def test_auto_reads_only_the_training_images_of_the_fold(composed: Any, data_root: Path) -> None:
    config = composed(
        "data=jsonl", f"data.root={data_root}", "preprocessing=auto", "data.fold=0", "data.folds=2"
    )
    config = resolve_preprocessing(config)
    data = build_data(config, build_preprocessing(config))
    data.setup()
    images = [np.asarray(Image.open(record.path)) / 255 for record in data.records("train")]
    assert np.allclose(config.preprocessing["mean"], np.mean(images, axis=(0, 1, 2)), atol=1e-4)
    assert np.allclose(config.preprocessing["std"], np.std(images, axis=(0, 1, 2)), atol=1e-4)


def test_explicit_preprocessing_values_stay_unchanged(composed: Any, data_root: Path) -> None:
    given_numbers = composed("data=jsonl", f"data.root={data_root}")
    assert resolve_preprocessing(given_numbers) == given_numbers
    partly = ["preprocessing=auto", "preprocessing.mean=[0.5,0.5,0.5]"]
    config = resolve_preprocessing(composed("data=jsonl", f"data.root={data_root}", *partly))
    assert config.preprocessing["mean"] == [0.5, 0.5, 0.5]


def test_pretrained_weights_set_the_preprocessing(
    composed: Any, data_root: Path, weights_file: Path
) -> None:
    settings = ["data=jsonl", f"data.root={data_root}", f"model.weights={weights_file}"]
    config = resolve_preprocessing(composed(*settings, "preprocessing=pretrained"))
    assert config.preprocessing["size"] == [224, 224]
    assert config.preprocessing["resize_to"] == 256
    assert config.preprocessing["resample"] == "bilinear"
    auto = resolve_preprocessing(composed(*settings, "preprocessing=auto"))
    assert auto.preprocessing["size"] == [32, 16], "the size is still that of the images"
    for node in (config.preprocessing, auto.preprocessing):
        assert (node["mean"], node["std"]) == ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])


@pytest.mark.parametrize("way", ["letterbox64", "crop224", "squash64"])
def test_weights_of_another_run_set_the_preprocessing(
    composed: Any, data_root: Path, make_run: Any, way: str
) -> None:
    mean, std = [0.1, 0.2, 0.3], [0.3, 0.2, 0.1]
    run = make_run(f"preprocessing={way}", f"preprocessing.mean={mean}", f"preprocessing.std={std}")
    settings = ["data=jsonl", f"data.root={data_root}", f"model.init_from={run}"]
    same = resolve_preprocessing(composed(*settings, "preprocessing=pretrained"))
    assert (
        build_preprocessing(same) == LabelsMapping.load(run / "labels_mapping.json").preprocessing
    )
    auto = resolve_preprocessing(composed(*settings, "preprocessing=auto")).preprocessing
    assert (auto["size"], auto["mean"], auto["std"]) == ([32, 16], mean, std), (
        "the size is still that of the images"
    )


@pytest.mark.parametrize("rounding", ["nearest", "torchvision"])
def test_weights_of_another_run_keep_its_rounding(
    composed: Any, data_root: Path, make_run: Any, rounding: str
) -> None:
    run = make_run("preprocessing=crop224", f"preprocessing.rounding={rounding}")
    settings = ["data=jsonl", f"data.root={data_root}", f"model.init_from={run}"]
    config = resolve_preprocessing(composed(*settings, "preprocessing=pretrained"))
    assert build_preprocessing(config).rounding == rounding


def test_auto_and_weights_are_refused_where_unsupported(composed: Any, data_root: Path) -> None:
    settings = ["data=jsonl", f"data.root={data_root}"]
    with pytest.raises(
        ConfigError,
        match=r"set model\.weights=DEFAULT or model\.init_from=RUN, or choose another",
    ):
        resolve_preprocessing(composed(*settings, "preprocessing=pretrained"))
    crop = ["preprocessing=crop224", "preprocessing.size=auto"]
    with pytest.raises(ConfigError, match="because resize_to is unknown"):
        resolve_preprocessing(composed(*settings, *crop))


def test_an_unknown_network_with_weights_suggests_the_closest_name(
    composed: Any, data_root: Path
) -> None:
    settings = [
        "data=jsonl",
        f"data.root={data_root}",
        "model.name=resnet81",
        "model.weights=DEFAULT",
    ]
    for preprocessing in ("auto", "pretrained"):
        with pytest.raises(
            ConfigError, match=r"model.name: unknown backbone 'resnet81'; did you mean 'resnet"
        ):
            resolve_preprocessing(composed(*settings, f"preprocessing={preprocessing}"))


def test_timm_weights_set_the_preprocessing(composed: Any, data_root: Path) -> None:
    pytest.importorskip("timm")
    settings = ["data=jsonl", f"data.root={data_root}", "model=timm", "model.weights=DEFAULT"]
    config = resolve_preprocessing(
        composed(*settings, "model.name=resnet10t", "preprocessing=pretrained")
    )
    assert config.preprocessing["size"] == [176, 176]
    assert config.preprocessing["resample"] == "bicubic"
    with pytest.raises(
        BackboneError, match="unknown timm backbone 'resnet10tt'; did you mean 'resnet10t'"
    ):
        resolve_preprocessing(composed(*settings, "model.name=resnet10tt", "preprocessing=auto"))


def test_a_run_records_numbers_and_the_stem_and_resumes_with_them(
    run_app: Any, data_root: Path
) -> None:
    settings = [
        "data=jsonl",
        f"data.root={data_root}",
        "preprocessing=auto",
        "run.name=one",
        "stages.evaluate=false",
    ]
    assert run_app(*settings, "trainer.max_epochs=1", "callbacks=none")[0] == 0
    folder = data_root.parent / "runs/one"
    config = yaml.safe_load((folder / "config.yaml").read_text())
    assert config["preprocessing"]["size"] == [32, 16]
    assert all(isinstance(value, float) for value in config["preprocessing"]["mean"])
    assert config["model"]["stem"] == "small", "images of up to 32 px"
    assert "small stem" in (folder / "train.log").read_text(), "packages log to the run folder"
    (folder / "summary.json").unlink()
    assert run_app(*settings, "trainer.max_epochs=1", "callbacks=none")[0] == 0


@pytest.mark.parametrize(
    "start",
    ["model.weights={file} preprocessing=auto", "model.init_from={run} preprocessing=pretrained"],
)
def test_a_run_resumes_after_its_initial_weights_were_deleted(
    run_app: Any, data_root: Path, weights_file: Path, make_run: Any, start: str
) -> None:
    file, run = data_root.parent / "weights.pth", make_run()
    shutil.copyfile(weights_file, file)
    settings = [
        "data=jsonl",
        f"data.root={data_root}",
        *start.format(file=file, run=run).split(),
        "run.name=one",
    ]
    settings += ["trainer.max_epochs=1", "callbacks=none", "stages.evaluate=false"]
    assert run_app(*settings)[0] == 0
    folder = data_root.parent / "runs/one"
    config = (folder / "config.yaml").read_text()
    (folder / "summary.json").unlink()
    (folder / "fit.json").unlink()
    file.unlink()
    shutil.rmtree(run)
    code, message = run_app(*settings)
    assert code == 0, message
    assert "resuming from" in message
    assert (folder / "config.yaml").read_text() == config


def test_auto_without_files_of_training_images_is_refused(composed: Any, tmp_path: Path) -> None:
    config = composed(
        "data=jsonl",
        f"data.root={tmp_path}",
        "data.shards=s3://bucket/shards",
        f"data.shard_cache={tmp_path}",
        "preprocessing.mean=auto",
    )
    with pytest.raises(ConfigError, match=r"preprocessing.mean: 'auto' needs the files"):
        resolve_preprocessing(config)
