"""Fuzzing: every damaged file or row gives a finding or correct pixels, and never a crash."""

import contextlib
import io
import json
import random
import re
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cls_data import DataError, ImageStore, SyntheticNumbers, check
from cls_data.annotations.reading import scan_split
from cls_data.images.strict_decoding import suppress_pillow_warnings


def encoded(image: Image.Image, kind: str, **settings: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **settings)
    return stream.getvalue()


def corpus() -> dict[str, bytes]:
    """Return undamaged files in every format."""
    render = SyntheticNumbers().render
    files = {}
    for number, label in enumerate(("23", "0", "00")):
        crop = render(label, (0, 0, number))
        exif = Image.Exif()
        exif[0x0112] = 3 + number
        gray16 = Image.fromarray(np.asarray(crop.convert("L")).astype(np.uint16) * 257)
        files |= {
            f"JPEG {label}": encoded(crop, "JPEG"),
            f"JPEG 4:4:4 {label}": encoded(crop, "JPEG", subsampling=0, quality=95),
            f"JPEG gray {label}": encoded(crop.convert("L"), "JPEG"),
            f"JPEG progressive {label}": encoded(
                crop, "JPEG", progressive=True, restart_marker_rows=1
            ),
            f"JPEG CMYK {label}": encoded(crop.convert("CMYK"), "JPEG"),
            f"JPEG turned {label}": encoded(crop, "JPEG", exif=exif),
            f"PNG {label}": encoded(crop, "PNG"),
            f"PNG RGBA {label}": encoded(crop.convert("RGBA"), "PNG"),
            f"PNG palette {label}": encoded(
                crop.quantize(16), "PNG", transparency=bytes(range(0, 160, 10))
            ),
            f"PNG 16 {label}": encoded(gray16, "PNG"),
            f"GIF {label}": encoded(crop, "GIF"),
            f"GIF frames {label}": encoded(
                crop, "GIF", save_all=True, append_images=[render("1", (0, 1, number))]
            ),
            f"BMP {label}": encoded(crop, "BMP"),
            f"WEBP {label}": encoded(crop, "WEBP"),
            f"WEBP lossless {label}": encoded(crop.convert("RGBA"), "WEBP", lossless=True),
            f"TIFF {label}": encoded(crop, "TIFF"),
            f"TIFF LZW {label}": encoded(crop, "TIFF", compression="tiff_lzw"),
            f"TIFF deflate {label}": encoded(crop, "TIFF", compression="tiff_adobe_deflate"),
            f"TIFF JPEG {label}": encoded(crop, "TIFF", compression="jpeg"),
            f"PPM {label}": encoded(crop, "PPM"),
            f"PPM 16 {label}": encoded(gray16, "PPM"),
        }
    return files


FILES = corpus()


def truncated(data: bytes, rng: random.Random) -> bytes:
    return data[: rng.randrange(len(data))]


def tail_zeroed(data: bytes, rng: random.Random) -> bytes:
    start = rng.randrange(len(data))
    return data[:start] + bytes(len(data) - start)


def bytes_flipped(data: bytes, rng: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.choice([1, 1, 2, 10])):
        changed[rng.randrange(len(data))] ^= rng.randrange(1, 256)
    return bytes(changed)


def header_flipped(data: bytes, rng: random.Random) -> bytes:
    return bytes_flipped(data[:64], rng) + data[64:]


def bytes_inserted(data: bytes, rng: random.Random) -> bytes:
    place = rng.randrange(len(data))
    return data[:place] + rng.randbytes(rng.choice([1, 2, 100])) + data[place:]


def bytes_removed(data: bytes, rng: random.Random) -> bytes:
    place = rng.randrange(len(data))
    return data[:place] + data[place + rng.choice([1, 2, 100]) :]


def header_swapped(data: bytes, rng: random.Random) -> bytes:
    length = rng.choice([2, 4, 8, 16, 40])
    return rng.choice(list(FILES.values()))[:length] + data[length:]


def two_joined(data: bytes, rng: random.Random) -> bytes:
    return data[: rng.choice([len(data), rng.randrange(len(data))])] + rng.choice(
        list(FILES.values())
    )


DAMAGES = (
    truncated,
    tail_zeroed,
    bytes_flipped,
    header_flipped,
    bytes_inserted,
    bytes_removed,
    header_swapped,
    two_joined,
)


@contextlib.contextmanager
def silence(capfd: pytest.CaptureFixture[str]) -> Iterator[None]:
    """Check that nothing is printed and no warning is emitted, in this or another process."""
    with warnings.catch_warnings(record=True) as escaped:
        warnings.simplefilter("always")
        yield
    assert not escaped, [str(warning.message) for warning in escaped]
    assert capfd.readouterr() == ("", "")


def reference(preprocessing: Any, data: bytes) -> Image.Image:
    with suppress_pillow_warnings():
        image: Image.Image = preprocessing.decode(data)
        return image


def feed(
    cases: Sequence[tuple[str, Any, bytes]],
    root: Path,
    preprocessing: Any,
    capfd: Any,
    workers: int,
) -> int:
    """Run reader, gate, and store on damaged files; return the number of good ones."""
    folder = root / "train"
    folder.mkdir(parents=True)
    for row, (_, _, data) in enumerate(cases):
        (folder / f"{row}.jpg").write_bytes(data)
    lines = [
        json.dumps({"image": f"{row}.jpg", "suffix": str(row % 3)}) + "\n"
        for row in range(len(cases))
    ]
    (folder / "annotations.jsonl").write_text("".join(lines))
    with silence(capfd):
        report = check(root, preprocessing, workers=workers)
    assert report.row_counts == {"train": len(cases)}
    findings = [*report.findings.get("damaged_images", ()), *report.findings.get("huge_images", ())]
    named = {finding.sources[0]: finding.text for finding in findings}
    assert all(text.startswith(f"{source}: train/") for source, text in named.items())
    records = [row.record for row in report.inputs.rows]
    good = [record for record in records if record.source not in named]
    with silence(capfd):
        store = ImageStore.build(good, preprocessing, workers=workers)
        with pytest.raises(DataError, match=rf"^{len(named)} image\(s\) cannot be decoded"):
            ImageStore.build(
                [record for record in records if record.source in named],
                preprocessing,
                workers=workers,
            )
    for record, pixels in zip(good, store.pixels.numpy(), strict=True):
        name, damage, data = cases[int(record.path.stem)]
        image = reference(preprocessing, data)
        assert np.array_equal(pixels.transpose(1, 2, 0), preprocessing.resize_image(image)), (
            name,
            damage,
        )
        whole_unless_black = damage is tail_zeroed and not name.startswith(
            ("BMP", "TIFF", "WEBP", "PPM")
        )
        if damage is truncated or whole_unless_black:
            assert image.tobytes() == reference(preprocessing, FILES[name]).tobytes(), (
                name,
                damage,
            )
    capfd.readouterr()  # drop libtiff's messages about the references
    return len(good)


def broken(seed: int, count: int) -> list[tuple[str, Any, bytes]]:
    rng = random.Random(seed)
    cases = []
    for number in range(count):
        name = rng.choice(list(FILES))
        damage = DAMAGES[number % len(DAMAGES)]
        cases.append((name, damage, damage(FILES[name], rng)))
    return cases


def test_undamaged_files_of_every_format_are_good(
    tmp_path: Path, preprocessing: Any, capfd: Any
) -> None:
    whole = [(name, None, data) for name, data in FILES.items()]
    assert feed([*whole, ("none", None, b"")], tmp_path, preprocessing, capfd, workers=1) == len(
        whole
    )


@pytest.mark.parametrize(("count", "workers"), [(200, 1), (600, 2)])
def test_damaged_files_give_a_finding_or_correct_pixels(
    tmp_path: Path, preprocessing: Any, capfd: Any, count: int, workers: int
) -> None:
    good = feed(broken(count, count), tmp_path, preprocessing, capfd, workers)
    assert 0.1 < good / count < 0.6


@pytest.mark.faults
@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10))
def test_thousands_of_damaged_files_give_a_finding_or_correct_pixels(
    tmp_path: Path, preprocessing: Any, capfd: Any, seed: int
) -> None:
    feed(broken(1000 + seed, 1000), tmp_path, preprocessing, capfd, workers=2)


GOOD = b'{"image": "0.png", "suffix": "1"}'

# Fragments of rows; joined, they often form an almost valid row.
_PIECES: tuple[bytes, ...] = (
    *(
        b"{",
        b"}",
        b"[",
        b"]",
        b":",
        b",",
        b'"',
        b" ",
        b"\t",
        b"\r",
        b"\0",
        b"\\",
        b"\xef\xbb\xbf",
        b"\xff\xfe",
        b"\xc3(",
    ),
    *(
        b'"image"',
        b'"suffix"',
        b'"label"',
        b'"prefix"',
        b'"group"',
        b'"metadata"',
        b'"x"',
        b"\xed\xa0\x80",
        b'"\\ud800"',
    ),
    *(
        b'"0.png"',
        b'"1"',
        b'""',
        b"1",
        b"-1e999",
        b"NaN",
        b"null",
        b"true",
        b"[]",
        b"{}",
        b'"\\u0000"',
        b'"\xf0\x9f\x8f\x80"',
    ),
    *(
        b'"/etc/hostname"',
        b'"../../outside.png"',
        b'"../train/0.png"',
        b'"link.png"',
        b'"gone.png"',
        b'"."',
    ),
    *(
        GOOD,
        GOOD[:-1],
        b'{"image": "0.png", "suffix": ',
        b'{"image": ',
        b', "group": ',
        b', "metadata": {"a": ',
    ),
    *(b"9" * 5000, b"[" * 300, b'{"a":' * 300, b"x" * 2000, b'"' + b"x/" * 3000 + b'"'),
)


def broken_row(rng: random.Random) -> bytes:
    match rng.randrange(5):
        case 0:
            return b"".join(rng.choices(_PIECES, k=rng.randrange(1, 8)))
        case 1:  # valid keys with any values
            values = {
                key: rng.choice(_PIECES) for key in ("image", "suffix", "group", "metadata", "x")
            }
            some = rng.sample(list(values), rng.randrange(1, 5))
            return (
                b"{" + b", ".join(b'"%s": %s' % (key.encode(), values[key]) for key in some) + b"}"
            )
        case 2:
            place = rng.randrange(len(GOOD))
            return GOOD[:place] + rng.choice(_PIECES) + GOOD[place + rng.randrange(3) :]
        case 3:  # a valid or almost valid row
            row: dict[str, Any] = {
                "image": rng.choice(
                    ["0.png", "./0.png", "../train/0.png", "link.png", "x/../0.png"]
                )
            }
            row[rng.choice(["suffix", "label"])] = rng.choice(
                ["", "1", "é", "0x1F3C0", "1\t", 1, None]
            )
            row |= rng.choice(
                [
                    {},
                    {"group": "g"},
                    {"group": 1},
                    {"metadata": {"a": [1.5, None]}},
                    {"prefix": "p"},
                ]
            )
            return json.dumps(row, ensure_ascii=rng.random() < 0.5).encode()
        case _:
            return rng.randbytes(rng.randrange(60)).replace(b"\n", b"")


def feed_rows(
    lines: Sequence[bytes], root: Path, preprocessing: Any, picture: Any, capfd: Any
) -> tuple[int, int]:
    folder = root / "train"
    folder.mkdir(parents=True)
    picture(0).save(folder / "0.png")
    picture(0).save(root.parent / "outside.png")
    (folder / "link.png").symlink_to(root.parent / "outside.png")
    (folder / "annotations.jsonl").write_bytes(b"\n".join([GOOD, *lines]))
    with silence(capfd):
        rows = scan_split(root, "train")
        report = check(root, preprocessing)
        report.write_quarantine(root / "left-out")
    # Every line that is not blank gives a record of the image or the link to it, or a bad row.
    numbers = [number for number, line in enumerate([GOOD, *lines], start=1) if line.strip()]
    sources = [*(record.source for record in rows.records), *(bad.source for bad in rows.bad_rows)]
    assert sorted(sources, key=lambda source: int(source.rpartition(":")[2])) == [
        f"train/annotations.jsonl:{number}" for number in numbers
    ]
    assert {record.id for record in rows.records} <= {"train/0.png", "train/link.png"}
    assert all(isinstance(record.label, str) for record in rows.records)
    for bad in rows.bad_rows:
        assert 0 < len(bad.reason) < 600
        assert not re.search(r"Traceback|object at 0x", bad.reason)
        bad.reason.encode()
    store = ImageStore.build(rows.records, preprocessing)
    assert np.array_equal(
        store.pixels[-1].numpy().transpose(1, 2, 0), preprocessing.resize_image(picture(0))
    )
    return len(rows.records), len(rows.bad_rows)


def test_broken_rows_give_a_bad_row_or_a_record(
    tmp_path: Path, preprocessing: Any, picture: Any, capfd: Any
) -> None:
    rng = random.Random(0)
    lines = [broken_row(rng) for _ in range(500)]
    good, bad = feed_rows(lines, tmp_path / "set", preprocessing, picture, capfd)
    assert min(good, bad) > 10


@pytest.mark.faults
@pytest.mark.slow
def test_ten_thousand_broken_rows_give_a_bad_row_or_a_record(
    tmp_path: Path, preprocessing: Any, picture: Any, capfd: Any
) -> None:
    rng = random.Random(1)
    feed_rows(
        [broken_row(rng) for _ in range(10_000)], tmp_path / "set", preprocessing, picture, capfd
    )


def test_lines_of_ten_megabytes_are_bad_rows(
    tmp_path: Path, preprocessing: Any, picture: Any, capfd: Any
) -> None:
    long = b'{"image": "0.png", "suffix": "' + b"x" * 10_000_000 + b'"}'
    lines = [long, GOOD, b" " * 10_000_000 + GOOD, b"\0" * 10_000_000, GOOD]
    assert feed_rows(lines, tmp_path / "set", preprocessing, picture, capfd) == (3, 3)


def test_the_gate_reports_bombs_wrong_suffixes_and_extreme_sizes(
    tmp_path: Path, preprocessing: Any, write_set: Any, picture: Any, capfd: Any
) -> None:
    rows = [
        *((f"{row}.png", picture(row), "1") for row in range(20)),
        ("bomb.png", encoded(Image.new("1", (15_000, 15_000)), "PNG"), "1"),
        ("a.jpg", encoded(picture(30), "GIF"), "1"),
        ("dot.png", encoded(Image.new("RGB", (1, 1)), "PNG"), "1"),
        ("line.png", encoded(Image.new("RGB", (10_000, 1)), "PNG"), "1"),
    ]
    root = write_set(tmp_path, {"train": rows})
    with silence(capfd):
        report = check(root, preprocessing)
    texts = {rule: [finding.text for finding in items] for rule, items in report.findings.items()}
    assert texts["huge_images"][0].startswith(
        "train/annotations.jsonl:21: train/bomb.png: 15000x15000 px is over"
    )
    assert texts["wrong_extensions"][0].startswith(
        "train/annotations.jsonl:22: train/a.jpg: a GIF file"
    )
    assert [text.split()[2] for text in texts["outlying_sizes"]] == ["1x1", "10000x1"]
    assert [text.split()[2] for text in texts["outlying_aspects"]] == ["10000x1"]
