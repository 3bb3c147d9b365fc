"""Rows C11 and D4: what a release publishes, and with which permissions."""

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[1]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
PROJECTS = sorted([*ROOT.glob("packages/*/pyproject.toml"), *ROOT.glob("apps/*/pyproject.toml")])
PINNED = re.compile(r"uses: [\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+")


def jobs(name: str) -> dict[str, Any]:
    content = yaml.safe_load((ROOT / ".github" / "workflows" / name).read_text())
    found: dict[str, Any] = content["jobs"]
    return found


def check_versions(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / ".ci" / "check_versions.py"), *arguments]
    return subprocess.run(
        [*command, "--root", str(root)], capture_output=True, text=True, check=False
    )


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """Return a folder with copies of the project files."""
    for project in PROJECTS:
        target = tmp_path / project.relative_to(ROOT)
        target.parent.mkdir(parents=True)
        shutil.copy(project, target)
    return tmp_path


def set_version(project: Path, version: str) -> None:
    text = re.sub(r'^version = ".*"$', f'version = "{version}"', project.read_text(), flags=re.M)
    project.write_text(text)


def test_packages_of_one_version_pass(copy: Path) -> None:
    assert check_versions(copy).returncode == 0
    for project in copy.glob("*/*/pyproject.toml"):
        set_version(project, "7.8.9")
    assert check_versions(copy, "7.8.9").returncode == 0
    assert check_versions(copy, "7.8.10").returncode == 1


@pytest.mark.parametrize("project", PROJECTS, ids=lambda path: path.parent.name)
def test_a_package_whose_version_is_bumped_alone_is_named(copy: Path, project: Path) -> None:
    set_version(copy / project.relative_to(ROOT), "7.8.9")
    result = check_versions(copy)
    assert result.returncode == 1
    name = re.findall(r'^name = "(.*)"$', project.read_text(), flags=re.M)[0]
    assert f"  {name} has version 7.8.9\n" in result.stderr

    result = check_versions(copy, "7.8.9")
    assert result.returncode == 1
    assert len(result.stderr.splitlines()) == len(PROJECTS)  # the others, and a heading


def test_versions_are_checked_by_every_change_and_by_the_release() -> None:
    assert ".ci/check_versions.py" in (ROOT / ".ci" / "check").read_text()
    steps = [step.get("run", "") for step in jobs("release.yml")["build"]["steps"]]
    assert 'python3 .ci/check_versions.py "${GITHUB_REF_NAME#v}"' in steps


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.stem)
def test_actions_are_pinned_by_commit_with_the_version_in_a_comment(workflow: Path) -> None:
    lines = [line for line in workflow.read_text().splitlines() if "uses:" in line]
    assert lines
    assert [line for line in lines if not PINNED.search(line)] == []


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.stem)
def test_jobs_with_an_identity_token_run_no_code_of_the_repository(workflow: Path) -> None:
    content = yaml.safe_load(workflow.read_text())
    assert "id-token" not in content["permissions"]
    for job in content["jobs"].values():
        if "id-token" not in job.get("permissions", {}):
            continue
        actions = [step["uses"].split("@")[0] for step in job["steps"] if "uses" in step]
        assert "actions/checkout" not in actions
        commands = "\n".join(step.get("run", "") for step in job["steps"])
        assert not re.search(r"\.ci/|make |uv (run|sync|build)|pytest", commands)
        assert "contents" not in job["permissions"]


def test_publishing_has_its_own_job_with_only_an_identity_token() -> None:
    release = jobs("release.yml")
    assert release["build"]["permissions"] == {"contents": "read"}
    assert release["publish"]["permissions"] == {"id-token": "write"}
    assert release["publish"]["environment"] == "release"
    assert set(release["publish"]["needs"]) == {"build", "attest"}


def test_every_published_package_gets_provenance_and_a_bill_of_materials() -> None:
    attest = jobs("release.yml")["attest"]
    packages = sorted(
        path.parent.name.replace("-", "_") for path in PROJECTS if "apps" not in path.parts
    )
    assert attest["strategy"]["matrix"]["package"] == packages
    attestations = [step["with"] for step in attest["steps"] if "actions/attest@" in step["uses"]]
    assert [sorted(settings) for settings in attestations] == [
        ["subject-path"],
        ["sbom-path", "subject-path"],
    ]
