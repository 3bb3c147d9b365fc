"""Every snippet of docs/use-a-bundle.md runs, in order, in an empty project."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from registry_server import RegistryServer, serving

from cls_export import LabelsMapping
from cls_export.bundle.model_card import write_model_card

pytestmark = pytest.mark.slow

REPOSITORY = Path(__file__).resolve().parents[1]
PAGE = (REPOSITORY / "docs/use-a-bundle.md").read_text("utf-8")
BUNDLE = REPOSITORY / "packages/cls-export/tests/golden/bundle_v3"
SNIPPET = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
NOT_RUN = re.compile(r"(?:docker login|python3? -m pip install) .*\n?")
"""Lines for an account and for another environment."""
AUTH = "cm9ib3Q6c2VjcmV0"
FRAME = """
import numpy as np
frame = np.zeros((90, 160, 3), np.uint8)
boxes = [(0, 0, 20, 30), (40, 10, 60, 50)]
"""


@pytest.fixture
def registry() -> Iterator[RegistryServer]:
    with serving() as server:
        server.authorization = f"Basic {AUTH}"
        yield server


class Project:
    """An empty folder with a run to export and images to classify, and the commands on PATH."""

    def __init__(self, folder: Path, registry: RegistryServer) -> None:
        self.folder = folder
        self._host = registry.host
        self._digest = ""
        run = shutil.copytree(BUNDLE, folder / "runs/r18/export")
        write_model_card(Path(run), LabelsMapping.load(BUNDLE / "labels_mapping.json"))
        (folder / "crops").mkdir()
        shutil.copy(BUNDLE / "golden/000.png", folder / "crops/a.png")
        folders = [str(Path(sys.executable).parent), os.environ["PATH"]]
        self._environment = {**os.environ, "PATH": os.pathsep.join(folders)}

    def run_shell(self, script: str) -> str:
        """Run a script with the real digest and registry, and return its output."""
        script = NOT_RUN.sub("", script).replace("uv run cls-export", "cls-export")
        script = script.replace("registry.example.com", self._host)
        if self._digest:
            script = re.sub(r"sha256:[0-9a-f]{64}", self._digest, script)
        output = self._run(["bash", "-euo", "pipefail", "-c", script])
        if "cls-export push" in script:
            self._digest = output.strip()
        return output

    def run_python(self, script: str) -> str:
        return self._run([sys.executable, "-c", script])

    def log_in(self) -> None:
        auths = {self._host: {"auth": AUTH}}
        self._environment["DOCKER_AUTH_CONFIG"] = json.dumps({"auths": auths})

    def log_out(self) -> None:
        del self._environment["DOCKER_AUTH_CONFIG"]

    def _run(self, command: list[str]) -> str:
        result = subprocess.run(
            command, cwd=self.folder, env=self._environment, capture_output=True, text=True
        )
        assert result.returncode == 0, result.stderr
        return result.stdout


def test_every_snippet_of_the_page_works_in_an_empty_project(
    registry: RegistryServer, tmp_path: Path
) -> None:
    project = Project(tmp_path, registry)
    kinds = []
    project.log_in()
    for kind, snippet in SNIPPET.findall(PAGE):
        kinds.append(kind)
        if kind == "sh":
            project.run_shell(snippet)
        elif kind == "yaml":
            run_workflow(project, yaml.safe_load(snippet)["steps"])
        elif name := re.match(r"# (\S+\.py)\n", snippet):
            (tmp_path / name[1]).parent.mkdir()
            (tmp_path / name[1]).write_text(snippet)
        else:
            assert len(project.run_python(FRAME + snippet).splitlines()) == 3
    assert kinds == ["sh", "sh", "sh", "python", "python", "yaml"]

    assert (tmp_path / "models/jersey/README.md").exists()
    assert (tmp_path / ".gitignore").read_text() == "models/\n"
    assert "1 passed" in project.run_shell("python -m pytest -p no:cacheprovider")


def run_workflow(project: Project, steps: list[dict[str, object]]) -> None:
    """Run the commands of the CI example; only steps with the secret are logged in."""
    project.log_out()
    shutil.rmtree(project.folder / "models")
    for step in steps:
        if "env" in step:
            assert step["env"] == {"DOCKER_AUTH_CONFIG": "${{ secrets.REGISTRY_AUTH }}"}
            project.log_in()
        if "run" in step:
            project.run_shell(str(step["run"]))
        if "env" in step:
            project.log_out()


def test_secret_of_the_example_has_the_form_that_is_read() -> None:
    comment = re.search(r"secrets\.REGISTRY_AUTH \}\} # (\{.*\})$", PAGE, re.MULTILINE)
    assert comment is not None
    example = json.loads(comment[1])
    assert example == {"auths": {"registry.example.com": {"auth": "…"}}}


def test_each_message_of_the_table_is_in_the_source() -> None:
    folder = REPOSITORY / "packages/cls-export/src/cls_export"
    source = "\n".join([path.read_text("utf-8") for path in folder.rglob("*.py")])
    rows = re.findall(r"^\| (`….*?`) \| ", PAGE, re.MULTILINE)
    assert len(rows) == 7
    for message in re.findall(r"`([^`]+)`", "\n".join(rows)):
        if "CERTIFICATE_VERIFY_FAILED" in message:  # of OpenSSL
            continue
        for part in message.split("…"):
            assert part.strip(" '") in source, message
