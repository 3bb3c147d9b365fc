import csv
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cls_export import Calibration, Classifier, Reject
from cls_export.cli.inference import _summarize
from cls_export.cli.main import main


def test_predict_jsonl_matches_classifier(
    exported: Path, image_files: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    code = main(
        [
            "predict",
            str(exported),
            str(image_files[0].parent),
            "--format",
            "jsonl",
            "--logits",
            "--top-k",
            "2",
        ]
    )
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert code == 0
    assert [row["image"] for row in rows] == [str(path) for path in image_files]
    for row, expected in zip(rows, Classifier(exported).predict(image_files), strict=True):
        assert row["label"] == expected.label
        assert row["top_k"][0] == [row["label"], row["confidence"]]
        assert len(row["top_k"]) == 2
        assert list(row["logits"].values()) == pytest.approx(expected.logits.tolist(), abs=1e-5)


def test_predict_csv_has_expected_columns(
    exported: Path, image_files: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    main(["predict", str(exported), *map(str, image_files), "--format", "csv", "--logits"])
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert len(rows) == 5
    assert set(rows[0]) == {
        "image",
        "label",
        "confidence",
        "rejected",
        "logit:",
        "logit:0",
        "logit:00",
        "logit:23",
    }
    assert {row["rejected"] for row in rows} == {"false"}


def test_predict_table_lists_every_image(
    exported: Path, image_files: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["predict", str(exported), *map(str, image_files)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == [str(path) for path in image_files]


def test_predict_names_bad_image_and_classifies_the_rest(
    exported: Path, image_files: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bad.png").write_bytes(b"nothing")
    code = main(
        [
            "predict",
            str(exported),
            str(image_files[0]),
            str(tmp_path / "bad.png"),
            str(image_files[1]),
        ]
    )
    output = capsys.readouterr()
    assert code == 1
    assert len(output.out.splitlines()) == 2
    assert (
        "bad.png: cannot be decoded (7 bytes in none of the accepted formats: JPEG, PNG"
        in output.err
    )
    assert "1 of 3 images could not be classified" in output.err


@pytest.mark.parametrize("form", ["jsonl", "csv", "table"])
def test_predict_escapes_undecodable_file_names(
    exported: Path, image_files: list[Path], tmp_path: Path, form: str
) -> None:
    odd = tmp_path / os.fsdecode(b"caf\xe9.jpg")
    try:
        odd.write_bytes(image_files[0].read_bytes())
    except OSError:
        pytest.skip("this file system takes no such name")
    command = [
        sys.executable,
        "-m",
        "cls_export.cli.main",
        "predict",
        str(exported),
        str(odd),
        "--format",
        form,
    ]
    done = subprocess.run(command, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert b"caf\\udce9.jpg" in done.stdout


def test_unwritable_target_exits_with_one_line(
    exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("onnx")
    annotations = tmp_path / "a.jsonl"
    annotations.write_text('{"image": "a.jpg", "suffix": "23"}')
    assert (
        main(
            [
                "float16",
                str(exported),
                str(annotations / "float16"),
                "--eval-images",
                str(annotations),
            ]
        )
        == 2
    )
    assert "a.jsonl" in capsys.readouterr().err


def test_predict_fails_for_folder_without_images(
    exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["predict", str(exported), str(tmp_path)]) == 2
    assert "no image files in" in capsys.readouterr().err


@pytest.mark.parametrize("options", [["--format", "csv", "--top-k", "3"], ["--logits"]])
def test_predict_refuses_options_without_effect(
    exported: Path, image_files: list[Path], options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["predict", str(exported), str(image_files[0]), *options]) == 2
    assert "use --format jsonl" in capsys.readouterr().err


def test_predict_refuses_top_k_of_zero(exported: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["predict", str(exported), "x.jpg", "--top-k", "0"])
    assert "must be a whole number of 1 to 1000000, got 0" in capsys.readouterr().err


def test_verify_prints_result_and_failures(
    bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["verify", str(bundle)]) == 0
    assert "5 golden images: passed" in capsys.readouterr().out
    (bundle / "golden" / "000.png").write_bytes(b"other")
    assert main(["verify", str(bundle)]) == 1
    output = capsys.readouterr()
    assert "1 FAILED" in output.out
    assert "FAILED 000.png: file" in output.err


def test_bad_bundle_exits_with_one_line_and_code_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["verify", str(tmp_path)]) == 2
    assert capsys.readouterr().err == (
        f"cls-export: {tmp_path}: model.onnx is missing; "
        "a bundle contains model.onnx and labels_mapping.json\n"
    )


def test_info_describes_bundle(exported: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", str(exported)]) == 0
    lines = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert lines["classes"] == "4: '', '0', '00', '23'"
    assert lines["input"] == "12 x 10 px, squash, bilinear"
    assert lines["confidence"] == "softmax, not calibrated"
    assert lines["rejects"] == "nothing"


def test_info_json_is_the_labels_mapping(
    exported: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["info", str(exported), "--json"]) == 0
    assert capsys.readouterr().out == Classifier(exported).labels.to_json()


def test_info_describes_calibration_and_thresholds(exported: Path) -> None:
    classifier = Classifier(exported)
    classifier.labels = classifier.labels.model_copy(
        update={
            "calibration": Calibration(method="temperature", scale=(0.5,), images=1364),
            "reject": Reject(
                threshold=0.25, by_class={"0": 0.5}, wanted="precision", level=0.99, images=1364
            ),
        }
    )
    rows = _summarize(classifier, exported / "model.onnx")
    assert rows["confidence"] == "calibrated by temperature scaling by 2 on 1,364 images"
    assert rows["rejects"] == (
        "below 0.250 (other thresholds for 1 classes), chosen for precision 99.0% on 1,364 images"
    )


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["half", "bundle", "target"], "half was renamed to float16"),
        (["float16", "bundle", "target", "--judge", "a"], "--judge was renamed to --eval-images"),
        (["quantize", "--largest-loss=0.1"], "--largest-loss was renamed to --max-accuracy-drop"),
        (["quantize", "--calibrate", "a"], "--calibrate was renamed to --calibration-images"),
    ],
)
def test_renamed_commands_and_options_name_the_new_ones(
    command: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit_info:
        main(command)
    assert exit_info.value.code == 2
    assert message in capsys.readouterr().err


def test_bench_prints_one_row_per_batch_size(
    exported: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", str(exported), "--batch", "1", "3", "--threads", "1"]) == 0
    header, *rows = capsys.readouterr().out.splitlines()
    assert header.split() == ["batch", "median,", "ms", "p95,", "ms", "images/s"]
    assert [int(row.split()[0]) for row in rows] == [1, 3]
    assert all(float(row.split()[1]) > 0 for row in rows)
