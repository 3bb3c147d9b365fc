"""The pages show what the app prints."""

import re
import shlex
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[3]


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
