"""Commands of `cls-data`. Exit codes: 0 all well, 1 the data does not pass the gate, 2 call or data cannot be used."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from pydantic import ValidationError
from rich.console import Console

from cls_data.annotations.quarantine import Quarantine
from cls_data.annotations.reading import SPLITS, Split, read_split
from cls_data.augmentation.preview import RECIPES, preview
from cls_data.convert.conversion import (
    Conversion,
    convert_csv,
    convert_image_folder,
    convert_roboflow,
)
from cls_data.errors import DataError
from cls_data.gate import GateConfig, check
from cls_data.gate.report import as_table, draw_offenders, write_json
from cls_data.images.store import ImageStore
from cls_data.splits.splitting import Splitting, write_folds, write_splits
from cls_data.statistics.dataset import DatasetStatistics
from cls_data.statistics.figure import draw
from cls_data.statistics.metadata_slices import MetadataSlices
from cls_data.statistics.table import slices_table, statistics_report
from cls_data.synthetic.numbers import SyntheticNumbers
from cls_data.synthetic.top_up import FOLDER, top_up
from cls_export.contract.preprocessing import Preprocessing


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return the process's exit code."""
    options = _parser().parse_args(arguments)
    try:
        code: int = options.run(options) or 0
        sys.stdout.flush()
    except DataError as error:
        print(f"cls-data: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        if isinstance(error, BrokenPipeError):  # the reader, such as head, has seen enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 0
        print(f"cls-data: {error.filename or 'a file'}: {error.strerror}", file=sys.stderr)
        return 2
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="cls-data", description="Look after annotated image folders."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, run: Any, text: str) -> argparse.ArgumentParser:
        made = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        made.add_argument(
            "root",
            metavar="ROOT",
            type=Path,
            help="folder that holds train/, valid/ and perhaps test/",
        )
        made.set_defaults(run=run)
        return made

    made = command("check", _check, "find what is wrong with rows and images")
    _add_reading(made)
    made.add_argument(
        "--config",
        metavar="FILE",
        type=Path,
        help="YAML of policies and thresholds (cls_data.GateConfig)",
    )
    made.add_argument(
        "--set",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        help="one of them; wins over the file",
    )
    made.add_argument(
        "--quarantine", metavar="FILE", type=Path, help="write the list of rows to leave out"
    )
    made.add_argument("--json", metavar="FILE", type=Path, help="write every finding")
    made.add_argument("--pictures", metavar="FOLDER", type=Path, help="draw the worst offenders")
    made.add_argument(
        "--workers", metavar="N", type=_positive, default=os.cpu_count() or 1, help="processes"
    )

    made = command(
        "convert", _convert, "write JSONL annotations beside the images of another layout"
    )
    made.add_argument(
        "--from", dest="layout", choices=["image-folder", "csv", "roboflow"], required=True
    )
    made.add_argument("--csv", metavar="FILE", type=Path, help="the table, for --from csv")
    for name in ("image", "label", "split", "group"):
        made.add_argument(
            f"--{name}-column", metavar="NAME", help=f"where the table holds the {name}"
        )

    made = command(
        "split", _split, "share rows out to train, valid and test, or to folds, by class and group"
    )
    made.add_argument(
        "--shares", metavar="S,S,S", help="of train, valid, test (default: 0.8,0.1,0.1)"
    )
    made.add_argument("--folds", metavar="K", type=_positive, help="K folds instead")
    made.add_argument("--seed", metavar="N", type=_seed, default=0)
    made.add_argument("--name", metavar="FOLDER", help="below ROOT, of the new annotations")
    made.add_argument("--group-by", metavar="KEY", help="metadata whose equal values stay together")
    made.add_argument("--keep-test", action="store_true", help="leave the test split as it is")
    made.add_argument(
        "--without", metavar="FILE", type=Path, help="a quarantine: rows to leave out"
    )

    made = command("stats", _stats, "count classes and measure images")
    _add_reading(made)
    made.add_argument("--by", metavar="KEY", help="also count by the values of this metadata")
    made.add_argument(
        "--picture", metavar="FILE.png", type=Path, help="draw the class distribution"
    )

    made = command(
        "synth", _synth, "render numbers: a whole set into an empty ROOT, or only for rare classes"
    )
    made.add_argument(
        "--up-to",
        metavar="N",
        type=_positive,
        help="render for classes of ROOT with fewer training rows",
    )
    made.add_argument("--classes", metavar="A,B,C", help="only these")
    made.add_argument("--seed", metavar="N", type=_seed, default=0)

    made = command("preview", _preview, "draw originals beside what augmentation makes of them")
    _add_reading(made)
    made.add_argument(
        "--recipe", choices=list(RECIPES), action="append", help="all of them if not given"
    )
    made.add_argument(
        "--out", metavar="FOLDER", type=Path, default=Path("preview"), help="(default: %(default)s)"
    )
    made.add_argument(
        "--size", metavar="PIXELS", type=_positive, default=64, help="(default: %(default)s)"
    )
    made.add_argument(
        "--images", metavar="N", type=_positive, default=8, help="(default: %(default)s)"
    )
    made.add_argument("--seed", metavar="N", type=_seed, default=0)
    return parser


def _add_reading(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--annotations",
        metavar="FOLDER",
        default="",
        help="below ROOT, that holds the splits: folds/0",
    )
    parser.add_argument(
        "--without", metavar="FILE", type=Path, help="a quarantine: rows to leave out"
    )


def _preprocessing(size: tuple[int, int]) -> Preprocessing:
    """Return preprocessing for commands that have no model to take it from."""
    return Preprocessing(size=size, mean=(0, 0, 0), std=(1, 1, 1))


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {value}")
    return value


def _seed(text: str) -> int:
    value = int(text)
    if not 0 <= value < 2**32:
        raise argparse.ArgumentTypeError(f"must be 0 to {2**32 - 1}, got {value}")
    return value


def _quarantine(options: argparse.Namespace) -> Quarantine | None:
    return None if options.without is None else Quarantine.load(options.without)


def _check(options: argparse.Namespace) -> int:
    if options.quarantine and options.without:
        raise DataError(
            "--quarantine with --without would write a list that lacks the rows left out already; drop one"
        )
    report = check(
        options.root,
        _preprocessing((64, 64)),
        _gate_config(options.config, options.set),
        annotations=options.annotations,
        quarantine=_quarantine(options),
        workers=options.workers,
        progress=sys.stderr.isatty(),
    )
    Console().print(as_table(report))
    if options.json:
        write_json(report, options.json)
    if options.pictures:
        for path in draw_offenders(report, options.pictures):
            print(f"drew {path}")
    if options.quarantine:
        count = report.write_quarantine(options.quarantine)
        print(
            f"{options.quarantine}: {count} rows to leave out; data.quarantine={options.quarantine} trains without them"
        )
    return 0 if report.passed else 1


def _gate_config(file: Path | None, settings: Sequence[str]) -> GateConfig:
    """Read policies and thresholds.

    Raises:
        DataError: the file is no YAML mapping, or a key or value is wrong.
    """
    values: Any = {}
    try:
        if file is not None:
            values = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
        if not isinstance(values, dict):
            raise DataError(
                f"{file}: expected a YAML mapping of rules to error, warn or off, and of thresholds to numbers"
            )
        for setting in settings:
            key, equals, value = setting.partition("=")
            if not equals:
                raise DataError(
                    f"--set {setting}: expected KEY=VALUE, such as near_duplicates_within_split=off"
                )
            values[key] = value
        return GateConfig.model_validate(values)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise DataError(f"{file}: not YAML ({error})") from error
    except ValidationError as error:
        wrong = "; ".join(
            f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors()
        )
        known = ", ".join(GateConfig.model_fields)
        raise DataError(f"the gate's settings are wrong: {wrong}. Known are {known}") from error


def _convert(options: argparse.Namespace) -> None:
    if (options.layout == "csv") != (options.csv is not None):
        raise DataError("--csv FILE goes with --from csv, and only with it")
    named = {
        name: value
        for name in ("image", "label", "split", "group")
        if (value := getattr(options, f"{name}_column")) is not None
    }
    if named and options.layout != "csv":
        raise DataError(f"--{next(iter(named))}-column goes with --from csv, and only with it")
    if options.layout == "csv":
        made = convert_csv(options.root, options.csv, **named)
    else:
        made = {"image-folder": convert_image_folder, "roboflow": convert_roboflow}[options.layout](
            options.root
        )
    _say_what_was_converted(made)


def _say_what_was_converted(made: Conversion) -> None:
    for split, file in made.files.items():
        print(f"{file}: {made.rows[split]} rows")
    for note in made.notes:
        print(note)


def _split(options: argparse.Namespace) -> None:
    settings: dict[str, Any] = {
        "seed": options.seed,
        "group_by": options.group_by,
        "keep_test": options.keep_test,
        "quarantine": _quarantine(options),
    }
    if options.name is not None:
        settings["name"] = options.name
    if options.folds is not None and options.shares is not None:
        raise DataError("--folds have equal shares; drop --shares")
    if options.folds is not None:
        made = write_folds(options.root, options.folds, **settings)
    else:
        made = write_splits(options.root, _shares(options.shares or "0.8,0.1,0.1"), **settings)
    _say_what_was_split(made)


def _shares(text: str) -> dict[Split, float]:
    try:
        shares = [float(share) for share in text.split(",")]
    except ValueError as error:
        raise DataError(f"--shares {text}: expected numbers, such as 0.8,0.1,0.1") from error
    if len(shares) not in (2, 3):
        raise DataError(f"--shares {text}: expected two or three, of train, valid and perhaps test")
    return dict(zip(SPLITS, shares, strict=False))


def _say_what_was_split(made: Splitting) -> None:
    for name, counts in made.counts.items():
        print(
            f"{name}: {sum(counts.values())} rows of {sum(count > 0 for count in counts.values())} classes"
        )
    for note in made.notes:
        print(note)
    print(f"train on one by data.annotations={made.names[0]}")


def _stats(options: argparse.Namespace) -> None:
    reading = {"annotations": options.annotations, "quarantine": _quarantine(options)}
    statistics = DatasetStatistics.read(options.root, **reading)
    console = Console()
    console.print(statistics_report(statistics))
    if options.by is not None:
        for split in statistics.counts:
            records = read_split(options.root, split, **reading)  # type: ignore[arg-type]
            console.print(f"{split} by {options.by}")
            console.print(
                slices_table(MetadataSlices.of(statistics.classes, records, options.by, limit=6))
            )
    if options.picture is not None:
        draw(statistics, options.picture)
        print(f"drew {options.picture}")


def _synth(options: argparse.Namespace) -> None:
    classes = options.classes.split(",") if options.classes else None
    if options.up_to is None:
        settings: dict[str, Any] = {} if classes is None else {"classes": tuple(classes)}
        try:
            rendered = SyntheticNumbers(seed=options.seed, **settings)
        except ValidationError as error:
            wrong = error.errors()[0]
            raise DataError(
                f"--{wrong['loc'][0]}: {wrong['msg']}, got {wrong['input']!r}"
            ) from error
        rendered.write(options.root)
        print(f"{options.root}: {len(rendered.classes)} classes rendered")
        return
    made = top_up(options.root, options.up_to, classes=classes, seed=options.seed)
    for label, count in made.rendered.items():
        print(f"{label!r}: {count} rendered")
    print(
        f"{options.root / FOLDER}: {made.total} crops rendered, up to {options.up_to} rows a class"
    )
    if made.skipped:
        print(f"not rendered, since these are not numbers: {', '.join(map(repr, made.skipped))}")


def _preview(options: argparse.Namespace) -> None:
    records = read_split(
        options.root, "train", annotations=options.annotations, quarantine=_quarantine(options)
    )
    if not records:
        raise DataError(f"{options.root}: no train/ folder, whose images a preview shows")
    records.sort(key=lambda record: record.label)  # so that evenly spaced ones are of many classes
    shown = [
        records[row] for row in torch.linspace(0, len(records) - 1, options.images).long().tolist()
    ]
    store = ImageStore.build(shown, _preprocessing((options.size, options.size)))
    options.out.mkdir(parents=True, exist_ok=True)
    for name in options.recipe or RECIPES:
        recipe = RECIPES[name]
        path = options.out / f"{name}.png"
        preview(store.pixels, recipe() if recipe else None, seed=options.seed).save(path)
        print(f"drew {path}")


if __name__ == "__main__":
    sys.exit(main())
