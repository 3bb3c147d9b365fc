"""The text of `apps/train --help`, without importing Hydra."""

import re
from pathlib import Path

from cls_export.contract.commands import EXIT_CODES

_DEFAULT = re.compile(r"^  - (?P<group>\w+): (?P<choice>\w+) *(?:# *(?P<purpose>.+))?$", re.M)
"""A line of the defaults list in config.yaml: `  - data: synthetic # Where images come from`."""

_HEAD = """\
usage: apps/train [GROUP=CHOICE ...] [KEY=VALUE ...] [flags]

Train an image classifier, evaluate it, export it, and write a report.

examples:
  apps/train                                             rendered numbers, about two minutes
  apps/train debug=tiny data=synthetic_tiny              all stages in about 20 seconds
  apps/train data=jsonl data.root=PATH run.name=first    your own images; repeat it to resume
  apps/train model=resnet34 optimizer.lr=0.002 data.batch_size=32
  apps/train -m seed=1,2,3 'optimizer.lr=choice(0.001,0.01)'

GROUP=CHOICE selects a file conf/GROUP/CHOICE.yaml. KEY=VALUE sets any argument of a chosen class,
whether or not the file names it; ~KEY removes a key. Quote values with special characters:
'data.root="/path/with=sign"'.

groups:
"""

_TAIL = """\
flags:
  -m, --multirun     run every combination of several values, as in seed=1,2 or 'seed=range(1,4)'
  --check            check everything, also the data, and stop before training
  --cfg job          print the configuration; with --resolve, with its references replaced
  --config-dir PATH  a folder with your own groups and choices, next to conf/
  --version          print the version of cls-train
  --info, --hydra-help, --shell-completion
                     answered by Hydra, which reads the configuration

Settings are documented in docs/training.md, docs/data.md, and docs/evaluation.md, in the comments
of conf/, and in the docstring of the class that a file names with _target_.
"""


def format_help(config_dir: Path) -> str:
    """Return the help page.

    Args:
        config_dir: The folder with config.yaml and the config groups.
    """
    text = (config_dir / "config.yaml").read_text(encoding="utf-8")
    lines = []
    for match in _DEFAULT.finditer(text):
        group, default, purpose = match["group"], match["choice"], match["purpose"] or ""
        files = (config_dir / group).glob("*.yaml")
        choices = sorted(file.stem for file in files)
        marked = [f"{each}*" if each == default else each for each in choices]
        lines.append(f"  {group:<14} {purpose}\n{'':17}{', '.join(marked)}\n")
    return f"{_HEAD}{''.join(lines)}{'':17}(* is the default)\n\n{_TAIL}\n{EXIT_CODES}"
