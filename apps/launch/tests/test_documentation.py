"""The pages show what the app prints."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from cls_launch.main import parse
from cls_launch.settings import compose_launch

REPOSITORY = Path(__file__).resolve().parents[3]
PAGES = (REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md")))
IMAGE = f"image=127.0.0.1:9/team/cls-train@sha256:{'ab' * 32}"
PLACEHOLDERS = {"PROJECT": "my-project", "BUCKET": "bucket"}


def find_commands() -> list[str]:
    """Return the arguments of every apps/launch in the pages, one command a line."""
    found = []
    for page in PAGES:
        for block in re.findall(r"^```sh\n(.*?)^```$", page.read_text("utf-8"), re.M | re.S):
            lines = block.replace("\\\n", "").splitlines()
            for line in lines:
                if re.match(r"uv run (--extra \w+ )?apps/launch ", line) and "…" not in line:
                    found.append(line.partition("apps/launch ")[2].partition("   #")[0])
    return list(dict.fromkeys(found))


@pytest.mark.parametrize("command", find_commands())
def test_commands_of_the_pages_are_accepted(run_launch: Any, command: str, tmp_path: Path) -> None:
    (tmp_path / "crops").mkdir()
    (tmp_path / "cls").mkdir()
    for placeholder, value in PLACEHOLDERS.items():
        command = command.replace(placeholder, value)
    arguments = shlex.split(command.replace("/shared", str(tmp_path)))
    if "--" not in arguments:
        launch = parse(arguments)
        assert launch.action is not None
        compose_launch(launch.settings, REPOSITORY / "conf")
        return
    has_image = any(argument.startswith("image=") for argument in arguments)
    image = [IMAGE] if has_image else []
    separator = arguments.index("--")
    code, _, err = run_launch(
        *arguments[:separator], *image, "allow_dirty=true", "--dry-run", *arguments[separator:]
    )
    assert code == 0, err


def test_no_command_of_the_pages_is_overlooked() -> None:
    assert len(find_commands()) >= 9


def test_the_script_in_the_page_of_clusters_is_the_one_that_is_submitted(
    run_launch: Any, tmp_path: Path
) -> None:
    page = (REPOSITORY / "docs/clusters.md").read_text("utf-8")
    section = page.partition("## SLURM\n")[2]
    (command,) = re.findall(r"^```sh\nuv run apps/launch (.*?)^```$", section, re.M | re.S)
    script = re.findall(r"^```bash\n(.*?)^```$", section, re.M | re.S)[0]
    for folder in ("cls", "crops"):
        (tmp_path / folder).mkdir()

    arguments = shlex.split(command.replace("\\\n", "").replace("/shared", str(tmp_path)))
    code, out, err = run_launch("allow_dirty=true", *arguments)
    assert code == 0, err
    shown = out.replace(str(tmp_path), "/shared")
    assert re.sub("commit:.*", "commit:COMMIT", shown) == script
