"""A bundle states the SHA-256 of its files, so damage is noticed (row C9)."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from cls_export import BundleError, Classifier, LabelsMapping, verify_bundle
from cls_export.cli.main import main

FILES = ("model.onnx", "labels_mapping.json", "golden/golden.json", "golden/000.png")


def flip_bit(file: Path, position: int) -> None:
    content = bytearray(file.read_bytes())
    content[position // 8] ^= 1 << position % 8
    file.write_bytes(content)


def describe_flip(bundle: Path, name: str, position: int, labels: LabelsMapping) -> str | None:
    """Flip a bit, verify, flip it back; return what names the file, or None if it is harmless."""
    file = bundle / name
    flip_bit(file, position)
    try:
        report = verify_bundle(bundle)
        is_harmless = name == "labels_mapping.json" and LabelsMapping.load(file) == labels
        return None if is_harmless else "\n".join(report.failures)
    except BundleError as error:
        return str(error)
    finally:
        flip_bit(file, position)


def check_flips(bundle: Path, flips: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels = LabelsMapping.load(bundle / "labels_mapping.json")
    for number in range(flips):
        name = FILES[number % len(FILES)]
        bits = 8 * (bundle / name).stat().st_size
        position = int(rng.integers(bits))
        message = describe_flip(bundle, name, position, labels)
        if message is not None:
            assert Path(name).name in message, (name, position, message)
    assert verify_bundle(bundle).passed


def test_some_flipped_bits_are_noticed_by_name(current_copy: Path) -> None:
    check_flips(current_copy, flips=40, seed=1)


@pytest.mark.faults
def test_500_flipped_bits_are_noticed_by_name_or_harmless(current_copy: Path) -> None:
    check_flips(current_copy, flips=500, seed=18)


def test_harmless_flips_are_those_of_white_space_and_rounding(current_copy: Path) -> None:
    mapping = current_copy / "labels_mapping.json"
    labels = LabelsMapping.load(mapping)
    mapping.write_bytes(mapping.read_bytes().replace(b"\n", b" "))
    assert LabelsMapping.load(mapping) == labels
    assert verify_bundle(current_copy).passed


@pytest.mark.parametrize("name", ["labels_mapping.json", "golden/golden.json"])
def test_line_ends_that_git_changed_are_harmless(current_copy: Path, name: str) -> None:
    file = current_copy / name
    file.write_bytes(file.read_bytes().replace(b"\n", b"\r\n"))
    assert verify_bundle(current_copy).passed


@pytest.mark.parametrize("name", FILES)
def test_pointer_of_git_lfs_is_named(current_copy: Path, name: str) -> None:
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 46000000\n"
    (current_copy / name).write_text(pointer)
    try:
        message = "".join(verify_bundle(current_copy).failures)
    except BundleError as error:
        message = str(error)
    assert f"{name} is a pointer of Git LFS" in message
    assert "git lfs pull" in message


@pytest.mark.parametrize("kind", ["zip", "gztar"])
def test_archive_of_a_bundle_is_named(current: Path, tmp_path: Path, kind: str) -> None:
    archive = shutil.make_archive(str(tmp_path / "bundle"), kind, current)
    with pytest.raises(BundleError, match=r"is a (ZIP|gzip) archive; unpack it first"):
        Classifier(archive)


def test_run_folder_instead_of_its_bundle_is_explained(current_copy: Path) -> None:
    bundle = current_copy.rename(current_copy.with_name("export"))
    with pytest.raises(BundleError, match=f"The bundle of this run is {bundle}"):
        Classifier(bundle.parent)


def test_changed_weight_is_refused_by_every_user_of_the_bundle(
    current_copy: Path, image_files: list[Path], tmp_path: Path
) -> None:
    model = current_copy / "model.onnx"
    flip_bit(model, 8 * 900)
    with pytest.raises(BundleError, match=r"model\.onnx is damaged or belongs to another bundle"):
        Classifier(current_copy)
    for command in (["info"], ["verify"], ["bench"]):
        assert main([*command, str(current_copy)]) == 2
    assert main(["predict", str(current_copy), str(image_files[0])]) == 2
    pytest.importorskip("onnx")
    from cls_export.convert.float16 import convert_to_float16

    with pytest.raises(BundleError, match=r"model\.onnx is damaged"):
        convert_to_float16(current_copy, tmp_path / "float16", image_files)


def test_changed_golden_logits_are_noticed_within_the_tolerance(
    current_copy: Path, tmp_path: Path, image_files: list[Path]
) -> None:
    golden = current_copy / "golden/golden.json"
    text = golden.read_text()
    digits = text.index("logits") + len('logits": [ -0.4214')
    golden.write_text(text[:digits] + "9" + text[digits + 1 :])
    with pytest.raises(BundleError, match=r"golden\.json is damaged or belongs to another bundle"):
        verify_bundle(current_copy)
    Classifier(current_copy)
    pytest.importorskip("onnx")
    from cls_export.convert.float16 import convert_to_float16

    with pytest.raises(BundleError, match=r"golden\.json is damaged"):
        convert_to_float16(current_copy, tmp_path / "float16", image_files)


@pytest.mark.parametrize("name", ["model.onnx", "labels_mapping.json"])
def test_files_of_two_bundles_are_not_mixed(current_copy: Path, exported: Path, name: str) -> None:
    shutil.copy(exported / name, current_copy / name)
    with pytest.raises(BundleError, match=rf"{name}"):
        Classifier(current_copy)


def test_mapping_without_hashes_does_not_belong_to_a_bundle(current_copy: Path) -> None:
    mapping = current_copy / "labels_mapping.json"
    LabelsMapping.load(mapping).without_file_hashes().save(mapping)
    with pytest.raises(BundleError, match="model_sha256 and golden_sha256 are missing"):
        Classifier(current_copy)


@pytest.mark.parametrize("version", [1, 2])
def test_older_bundles_work_with_a_notice_that_integrity_is_unknown(
    version: int, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = Path(__file__).parents[1] / f"golden/bundle_v{version}"
    assert not Classifier(bundle).has_checked_hash
    assert not verify_bundle(bundle).has_checked_hash

    assert main(["verify", str(bundle)]) == 0
    assert "the integrity cannot be checked" in capsys.readouterr().err
    assert main(["info", str(bundle)]) == 0
    assert "integrity     cannot be checked" in capsys.readouterr().out


def test_current_bundle_is_checked_without_notice(
    current: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert Classifier(current).has_checked_hash
    assert verify_bundle(current).has_checked_hash
    assert main(["verify", str(current)]) == 0
    assert main(["info", str(current)]) == 0
    output = capsys.readouterr()
    assert output.err == ""
    assert "integrity     SHA-256 of the model checked" in output.out


def test_single_model_cannot_be_checked(current: Path) -> None:
    classifier = Classifier(current / "model.onnx")
    assert not classifier.has_checked_hash
    assert classifier.model_sha256 == Classifier(current).model_sha256
    assert classifier.labels == Classifier(current).labels


def test_labels_of_classifier_are_those_that_were_exported(
    current: Path, labels: LabelsMapping
) -> None:
    assert Classifier(current).labels == labels


def test_restated_hashes_are_accepted(
    current_copy: Path, restate_hashes: Callable[[Path], None]
) -> None:
    golden = current_copy / "golden/golden.json"
    golden.write_bytes(golden.read_bytes() + b"\n")
    with pytest.raises(BundleError, match=r"golden\.json is damaged"):
        verify_bundle(current_copy)
    restate_hashes(current_copy)
    assert verify_bundle(current_copy).passed
