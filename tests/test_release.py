"""Rows C11 and D4: what a release publishes, from which versions, and with which permissions."""

import contextlib
import hashlib
import io
import os
import re
import runpy
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).parents[1]
MODULE = runpy.run_path(str(ROOT / ".ci" / "release.py"))
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
PROJECTS = sorted([*ROOT.glob("packages/*/pyproject.toml"), *ROOT.glob("apps/*/pyproject.toml")])
PACKAGES = sorted(path.parent.name for path in ROOT.glob("packages/*/pyproject.toml"))
APPS = sorted(ROOT.glob("apps/*/__main__.py"))
PINNED = re.compile(r"uses: [\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+$")
CHANGELOG = """\
# Changelog

## [Unreleased]

### Fixed

- A message.

## [0.1.1] - 2026-02-01

- Second release.

## [0.1.0] - 2026-01-01

### Added

- First release.
"""
UNRELEASED = CHANGELOG[CHANGELOG.index("## [Un") : CHANGELOG.index("## [0.1.1")]


def read_table(project: Path) -> dict[str, Any]:
    table: dict[str, Any] = tomllib.loads(project.read_text())["project"]
    return table


NAMES = [read_table(project)["name"] for project in PROJECTS]


def list_requirements(project: Path) -> list[Requirement]:
    table = read_table(project)
    texts = list(table["dependencies"])
    for extra in table.get("optional-dependencies", {}).values():
        texts += extra
    return [Requirement(text) for text in texts]


def workflow_jobs(name: str) -> dict[str, Any]:
    content = yaml.safe_load((ROOT / ".github" / "workflows" / name).read_text())
    jobs: dict[str, Any] = content["jobs"]
    return jobs


def run_commands(job: dict[str, Any]) -> list[str]:
    return [step["run"] for step in job["steps"] if "run" in step]


def release(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command in this process, which is faster than a new one for each test."""
    code, error = 0, ""
    with contextlib.redirect_stdout(io.StringIO()) as output:
        try:
            MODULE["main"](["--root", str(root), *arguments])
        except SystemExit as stop:
            code, error = 1, f"{stop.code}\n"
    return subprocess.CompletedProcess(arguments, code, output.getvalue(), error)


def run_git(root: Path, *arguments: str) -> None:
    identity = ["-c", "user.name=Test", "-c", "user.email=test@example.com"]
    command = ["git", "-C", str(root), *identity, *arguments]
    environment = os.environ | {"GIT_COMMITTER_DATE": "2026-03-01T12:00:00Z"}
    subprocess.run(command, check=True, capture_output=True, env=environment)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """Return a folder with copies of the project files, and a changelog."""
    for project in PROJECTS:
        target = tmp_path / project.relative_to(ROOT)
        target.parent.mkdir(parents=True)
        shutil.copy(project, target)
    (tmp_path / "CHANGELOG.md").write_text(CHANGELOG)
    return tmp_path


@pytest.fixture
def repository(copy: Path) -> Path:
    """Return such a folder as a git repository with one commit."""
    run_git(copy, "init", "--quiet", "--initial-branch=main")
    run_git(copy, "commit", "--quiet", "--allow-empty", "--message=first")
    return copy


def copied_projects(root: Path) -> list[Path]:
    return sorted([*root.glob("packages/*/pyproject.toml"), *root.glob("apps/*/pyproject.toml")])


def replace(file: Path, pattern: str, replacement: str) -> None:
    text, count = re.subn(pattern, replacement, file.read_text(), flags=re.M)
    assert count > 0
    file.write_text(text)


def test_the_repository_passes() -> None:
    result = release(ROOT, "check")
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("project", PROJECTS, ids=lambda path: path.parent.name)
def test_a_package_whose_version_is_changed_alone_is_named(copy: Path, project: Path) -> None:
    replace(copy / project.relative_to(ROOT), '^version = ".*"', 'version = "7.8.9"')
    result = release(copy, "check")
    assert result.returncode == 1
    assert f"  {read_table(project)['name']} has version 7.8.9\n" in result.stderr
    assert len(result.stderr.splitlines()) == 2  # a heading, and this package


@pytest.mark.parametrize("bound", ["", ">=0.1", "==0.1.0", "~=0.1", "~=0.0.9", "~=0.1.0,!=0.1.3"])
@pytest.mark.parametrize("sibling", ["cls-data", "cls-export[torch]", "cls-callbacks[gcs]"])
def test_a_sibling_with_another_bound_is_named(copy: Path, sibling: str, bound: str) -> None:
    project = copy / "apps" / "train" / "pyproject.toml"
    replace(project, rf'"{re.escape(sibling)}~=[^"]*"', f'"{sibling}{bound}"')
    result = release(copy, "check")
    assert result.returncode == 1
    assert f"  cls-train needs '{sibling}{bound}', expected '{sibling}~=" in result.stderr


versions = st.builds(
    "{}.{}.{}".format, st.integers(0, 3), st.integers(0, 12), st.integers(0, 12)
).filter(lambda version: version != "0.0.0")


@given(versions, versions)
def test_a_bound_accepts_later_patches_of_its_minor_series(first: str, second: str) -> None:
    bound = Requirement(f"cls-data~={first}").specifier
    ours, theirs = Version(first), Version(second)
    is_same_series = (ours.major, ours.minor) == (theirs.major, theirs.minor)
    assert bound.contains(second) == (is_same_series and theirs >= ours)


@pytest.mark.parametrize(
    ("tags", "given", "expected"),
    [
        ([], "minor", "0.1.0"),
        (["v0.1.0"], "patch", "0.1.1"),
        (["v0.9.0", "v0.10.2"], "minor", "0.11.0"),
        (["v0.10.2", "v0.9.0", "version", "vnext"], "major", "1.0.0"),
        (["v0.2.0rc1"], "patch", "0.2.0"),
        (["v0.1.0"], "0.3.0rc1", "0.3.0rc1"),
        (["v0.3.0rc1"], "0.3.0rc2", "0.3.0rc2"),
        (["v0.3.0rc10"], "0.3.0", "0.3.0"),
    ],
)
def test_the_next_version_follows_the_newest_tag(
    repository: Path, tags: list[str], given: str, expected: str
) -> None:
    (repository / "CHANGELOG.md").write_text(UNRELEASED)
    for project in copied_projects(repository):
        replace(project, re.escape(read_table(project)["version"]), "0.1.0")
    for tag in tags:
        run_git(repository, "tag", tag)
    assert release(repository, "prepare", given).returncode == 0
    for project in copied_projects(repository):
        assert read_table(project)["version"] == expected
        for requirement in list_requirements(project):
            if requirement.name in NAMES:
                assert str(requirement.specifier) == f"~={expected}"


@pytest.mark.parametrize("version", ["0.2.0", "1.0.0rc1"])
def test_what_is_prepared_can_be_released(repository: Path, version: str) -> None:
    before = [project.read_text() for project in copied_projects(repository)]
    assert release(repository, "prepare", version).returncode == 0
    result = release(repository, "check", "--tag", f"v{version}")
    assert result.returncode == 0, result.stderr
    assert release(repository, "notes", f"v{version}").stdout == "### Fixed\n\n- A message.\n"

    for project, text in zip(copied_projects(repository), before, strict=True):
        current = read_table(PROJECTS[0])["version"]
        assert project.read_text().replace(version, current) == text  # nothing else changes


@pytest.mark.parametrize(
    ("tags", "version", "message"),
    [
        ([], "1.0", "'1.0' is not a version"),
        ([], "v1.0.0", "'v1.0.0' is not a version"),
        ([], "1.0.0-rc1", "'1.0.0-rc1' is not a version"),
        ([], "01.0.0", "'01.0.0' is not a version"),
        ([], "1.0.0\n", "'1.0.0\\n' is not a version"),
        (["v1.10.0"], "1.9.0", "1.9.0 is not newer than the newest tag, v1.10.0"),
        (["v1.0.0"], "1.0.0rc1", "1.0.0rc1 is not newer than the newest tag, v1.0.0"),
        (["v1.0.0"], "1.0.0", "1.0.0 is not newer than the newest tag, v1.0.0"),
        ([], "0.1.1", "CHANGELOG.md already has a section for 0.1.1"),
        ([], "patch", "0.0.1 is older than the packages, which have version 0.1.0"),
        ([], "0.1.0rc1", "0.1.0rc1 is older than the packages, which have version 0.1.0"),
    ],
)
def test_a_wrong_version_changes_nothing(
    repository: Path, tags: list[str], version: str, message: str
) -> None:
    for tag in tags:
        run_git(repository, "tag", tag)
    before = [path.read_text() for path in copied_projects(repository)]
    result = release(repository, "prepare", version)
    assert result.returncode == 1
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert [path.read_text() for path in copied_projects(repository)] == before
    assert (repository / "CHANGELOG.md").read_text() == CHANGELOG


@pytest.mark.parametrize(
    ("tag", "message"),
    [
        ("v9.9.9", "All packages must have version 9.9.9"),
        ("0.1.0", "'0.1.0' is not a release tag"),
        ("v0.1", "'0.1' is not a version"),
        ("v0.1.0-dirty", "'0.1.0-dirty' is not a version"),
    ],
)
def test_a_tag_that_does_not_match_is_refused(copy: Path, tag: str, message: str) -> None:
    result = release(copy, "check", "--tag", tag)
    assert result.returncode == 1
    assert message in result.stderr


@pytest.mark.parametrize(
    ("changelog", "message"),
    [
        (CHANGELOG.replace("## [0.1.0]", "## [0.0.9]"), "has no section for 0.1.0; to write it"),
        (CHANGELOG.replace("- First release.\n", ""), "the section for 0.1.0 has no entry"),
        (CHANGELOG.replace("[0.1.1]", "[0.1.0]"), "two sections '## [0.1.0]'"),
        (CHANGELOG.replace("2026-01-01", "2026-02-30"), "day is out of range"),
        (CHANGELOG.replace("[0.1.0] - 2026-01-01", "0.1.0"), "'## 0.1.0' is not a section"),
        (CHANGELOG.replace(UNRELEASED, ""), "the first section must be '## [Unreleased]'"),
        ("", "the first section must be '## [Unreleased]'"),
    ],
)
def test_a_tag_without_its_section_is_refused(copy: Path, changelog: str, message: str) -> None:
    (copy / "CHANGELOG.md").write_text(changelog)
    for project in copied_projects(copy):
        replace(project, read_table(project)["version"].replace(".", r"\."), "0.1.0")
    result = release(copy, "check", "--tag", "v0.1.0")
    assert result.returncode == 1
    assert message in result.stderr


@pytest.mark.parametrize("name", ["cls_data", "Cls.Data", "CLS-data"])
def test_another_spelling_of_a_sibling_is_found(copy: Path, name: str) -> None:
    replace(copy / "apps" / "train" / "pyproject.toml", '"cls-data~=[^"]*"', f'"{name}"')
    result = release(copy, "check")
    assert result.returncode == 1
    assert f"cls-train needs '{name}', expected 'cls-data~=" in result.stderr


@pytest.mark.parametrize(
    ("pattern", "replacement", "message"),
    [
        ("^version = .*$", 'dynamic = ["version"]', "[project] has no version"),
        ("^version = .*$", "version = 1", "[project] has no version"),
        ("^version = .*$", "version =", "Invalid value"),
        (r"^\[project\]$", "[other]", "[project] has no name"),
    ],
)
@pytest.mark.parametrize("command", [["check"], ["prepare", "0.9.0"]])
def test_an_unusable_project_file_is_named(
    repository: Path, command: list[str], pattern: str, replacement: str, message: str
) -> None:
    project = repository / "packages" / "cls-data" / "pyproject.toml"
    replace(project, pattern, replacement)
    result = release(repository, *command)
    assert result.returncode == 1
    assert str(project) in result.stderr
    assert message in result.stderr


def test_a_missing_changelog_is_named(copy: Path) -> None:
    (copy / "CHANGELOG.md").unlink()
    result = release(copy, "check")
    assert result.returncode == 1
    assert "CHANGELOG.md: missing" in result.stderr


def test_nothing_is_prepared_without_a_description_of_changes(repository: Path) -> None:
    (repository / "CHANGELOG.md").write_text(CHANGELOG.replace("- A message.\n", ""))
    result = release(repository, "prepare", "0.3.0")
    assert result.returncode == 1
    assert "[Unreleased] has no entry" in result.stderr


def test_metadata_that_names_another_repository_is_refused(copy: Path) -> None:
    address = read_table(PROJECTS[0])["urls"]["Repository"]
    assert release(copy, "check", "--repository", address).returncode == 0
    result = release(copy, "check", "--repository", "https://example.com/fork")
    assert result.returncode == 1
    assert len(result.stderr.splitlines()) == 1 + len(PROJECTS)


@pytest.mark.parametrize("project", PROJECTS, ids=lambda path: path.parent.name)
def test_metadata_is_complete(project: Path) -> None:
    table = read_table(project)
    assert sorted(table["urls"]) == ["Changelog", "Documentation", "Issues", "Repository"]
    assert all(
        address.startswith(table["urls"]["Repository"]) for address in table["urls"].values()
    )
    assert table["keywords"] == sorted(set(table["keywords"]))
    assert table["license"] == "Apache-2.0"
    assert (project.parent / "LICENSE").read_text() == (ROOT / "LICENSE").read_text()
    assert not [name for name in table["classifiers"] if name.startswith("License ::")]  # PEP 639
    assert "Typing :: Typed" in table["classifiers"]
    package = project.parent / "src" / table["name"].replace("-", "_")
    assert (package / "py.typed").is_file()


@pytest.mark.parametrize("package", PACKAGES)
def test_links_of_published_pages_work_outside_of_the_repository(package: str) -> None:
    text = (ROOT / "packages" / package / "README.md").read_text()
    links = re.findall(r"\]\(([^)]+)\)", text)
    assert [link for link in links if not link.startswith(("https://", "#"))] == []


def version_commands() -> list[tuple[list[str], str]]:
    """Return every command of the repository with the package that it belongs to."""
    commands = [
        (["-m", "cls_data.cli.main"], "cls-data"),
        (["-m", "cls_export.cli.main"], "cls-export"),
    ]
    for main in APPS:
        is_project = (main.parent / "pyproject.toml").is_file()
        commands.append(
            ([str(main.parent)], f"cls-{main.parent.name}" if is_project else "cls-report")
        )
    return commands


@pytest.mark.parametrize(("command", "package"), version_commands())
def test_version_is_printed_without_heavy_imports(command: list[str], package: str) -> None:
    result = subprocess.run(
        [sys.executable, "-X", "importtime", *command, "--version"],
        capture_output=True,
        text=True,
        check=True,
    )
    project = PROJECTS[NAMES.index(package)]
    assert result.stdout == f"{package} {read_table(project)['version']}\n"
    imported = set(re.findall(r"^import time:.*\| +([\w.]+)$", result.stderr, flags=re.M))
    assert "argparse" in imported or "cls_train.main" in imported  # the list was read
    assert not imported & {"torch", "onnxruntime", "lightning", "matplotlib", "scipy"}


def test_each_change_and_each_release_is_checked() -> None:
    check = (ROOT / ".ci" / "check").read_text()
    assert ".ci/release.py check\n" in check
    assert "bash .ci/check-workflows\n" in check
    assert "bash .ci/check-dist\n" in (ROOT / ".ci" / "run").read_text()
    commands = run_commands(workflow_jobs("release.yml")["build"])
    tag = '--tag "$GITHUB_REF_NAME" --repository "$GITHUB_SERVER_URL/$GITHUB_REPOSITORY"'
    checking = commands.index(f"python3 .ci/release.py check {tag}")
    assert checking < commands.index("bash .ci/run")


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.stem)
def test_actions_are_pinned_by_commit_with_the_version_in_a_comment(workflow: Path) -> None:
    lines = [line for line in workflow.read_text().splitlines() if "uses:" in line]
    assert lines
    assert [line for line in lines if not PINNED.search(line)] == []


def test_an_action_has_one_commit_everywhere() -> None:
    texts = "\n".join(workflow.read_text() for workflow in WORKFLOWS)
    pins = set(re.findall(r"uses: (\S+)@(\w+) # (\S+)", texts))
    assert len(pins) == len({action for action, _, _ in pins})


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.stem)
def test_jobs_with_a_token_for_releases_run_no_code_of_the_repository(workflow: Path) -> None:
    content = yaml.safe_load(workflow.read_text())
    assert set(content["permissions"].values()) <= {"read"}
    for job in content["jobs"].values():
        granted = {name for name, level in job.get("permissions", {}).items() if level == "write"}
        if not granted & {"id-token", "attestations", "contents"}:
            continue
        actions = [step["uses"].split("@")[0] for step in job["steps"] if "uses" in step]
        assert "actions/checkout" not in actions
        commands = "\n".join(run_commands(job))
        assert not re.search(r"\.ci/|make |\buv |pip |npm |curl |pytest|python", commands)


def test_publishing_only_downloads_and_publishes() -> None:
    release_jobs = workflow_jobs("release.yml")
    publish = release_jobs["publish"]
    assert publish["permissions"] == {"id-token": "write"}
    assert publish["environment"] == "release"
    assert set(publish["needs"]) == {"build", "attest"}
    actions = [step["uses"].split("@")[0] for step in publish["steps"]]  # no step has commands
    assert actions == ["actions/download-artifact", "pypa/gh-action-pypi-publish"]
    assert publish["steps"][1]["with"]["attestations"] is True


def test_each_job_of_a_release_has_only_its_own_permissions() -> None:
    permissions = {name: job["permissions"] for name, job in workflow_jobs("release.yml").items()}
    assert permissions == {
        "build": {"contents": "read"},
        "attest": {"id-token": "write", "attestations": "write"},
        "publish": {"id-token": "write"},
        "release": {"contents": "write"},
    }


def test_every_published_package_gets_provenance_and_a_bill_of_materials() -> None:
    attest = workflow_jobs("release.yml")["attest"]
    published = [name.replace("-", "_") for name in PACKAGES]
    assert attest["strategy"]["matrix"]["package"] == published
    attestations = [step["with"] for step in attest["steps"] if "actions/attest@" in step["uses"]]
    assert [sorted(settings) for settings in attestations] == [
        ["subject-path"],
        ["sbom-path", "subject-path"],
    ]


def test_apps_are_not_published(tmp_path: Path) -> None:
    dist = tmp_path / "dist"
    dist.mkdir()
    for name in NAMES:
        (dist / f"{name.replace('-', '_')}-0.1.0.tar.gz").touch()
    commands = run_commands(workflow_jobs("release.yml")["build"])
    [removal] = [command for command in commands if command.startswith("rm ")]
    subprocess.run(["bash", "-ec", removal], cwd=tmp_path, check=True)
    names = sorted(path.name.partition("-")[0].replace("_", "-") for path in dist.iterdir())
    assert names == PACKAGES


@pytest.mark.parametrize(("branch", "code"), [("main", 0), ("side", 1)])
def test_only_commits_on_main_are_released(repository: Path, branch: str, code: int) -> None:
    clone = repository / "clone"
    run_git(repository, "checkout", "--quiet", "-B", branch)
    run_git(repository, "commit", "--quiet", "--allow-empty", "--message=second")
    run_git(repository, "clone", "--quiet", str(repository), str(clone))
    commands = run_commands(workflow_jobs("release.yml")["build"])
    result = subprocess.run(["bash", "-ec", commands[0]], cwd=clone, check=False)
    assert result.returncode == code


@pytest.mark.parametrize(("tag", "candidate"), [("v0.2.0", "false"), ("v0.2.0rc1", "true")])
def test_a_repeated_release_job_continues(tmp_path: Path, tag: str, candidate: str) -> None:
    gh = tmp_path / "gh"  # stands in for the code host: records calls, and knows the release then
    gh.write_text(
        '#!/bin/sh\necho "$@" >>calls\n'
        'case "$2" in create) touch exists ;; view) test -e exists ;; esac\n'
    )
    gh.chmod(0o755)
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", "GITHUB_REF_NAME": tag}
    for _ in range(2):
        for command in run_commands(workflow_jobs("release.yml")["release"]):
            subprocess.run(["bash", "-ec", command], cwd=tmp_path, env=environment, check=True)
    calls = [line.split()[1] for line in (tmp_path / "calls").read_text().splitlines()]
    assert calls == ["view", "create", "upload", "edit", "view", "upload", "edit"]
    last = (tmp_path / "calls").read_text().splitlines()[-1]
    assert last == f"release edit {tag} --draft=false --prerelease={candidate}"


def test_every_requirement_of_the_infrastructure_names_files_that_exist() -> None:
    page = ROOT / "docs" / "infrastructure.md"
    rows = re.findall(r"^\| (INFRA-\d): .*$", page.read_text(), flags=re.M)
    assert rows == [f"INFRA-{number}" for number in range(1, 9)]
    words = set(re.findall(r"[\w./-]+", page.read_text()))
    names = {word for word in words if re.match(r"(docker|docs|tests|\.ci|\.github)/", word)}
    assert len(names) > 10
    assert [name for name in sorted(names) if not (ROOT / name).exists()] == []
    links = re.findall(r"\]\(([\w./-]+)", page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_every_selection_of_the_infrastructure_finds_tests() -> None:
    page = (ROOT / "docs" / "infrastructure.md").read_text()
    selections = re.findall(r"(tests/\w+\.py) -k (?:\"([^\"]+)\"|(\w+))", page)
    assert selections
    for file, quoted, word in selections:
        names = re.findall(r"^def (test_\w+)", (ROOT / file).read_text(), flags=re.M)
        for keyword in (quoted or word).split(" or "):
            assert [name for name in names if keyword in name], f"{file} -k {keyword}"


@pytest.mark.slow
def test_two_builds_of_one_commit_are_identical(tmp_path: Path) -> None:
    builds = []
    for name in ("first", "second"):
        source = tmp_path / name
        for project in PROJECTS[:3]:
            folder = source / project.parent.relative_to(ROOT)
            ignore = shutil.ignore_patterns("__pycache__", "tests", ".*")
            shutil.copytree(project.parent, folder, copy_function=shutil.copyfile, ignore=ignore)
        shutil.copy(ROOT / "pyproject.toml", source)
        shutil.copytree(ROOT / ".ci", source / ".ci", ignore=shutil.ignore_patterns("consumer"))
        run_git(source, "init", "--quiet")
        run_git(source, "commit", "--quiet", "--allow-empty", "--message=all")
        environment = {name: value for name, value in os.environ.items() if name != "VIRTUAL_ENV"}
        subprocess.run(["bash", ".ci/build"], cwd=source, env=environment, check=True)
        files = sorted((source / "dist").glob("cls_*"))
        assert len(files) == 2 * 3
        builds.append({path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files})
    assert builds[0] == builds[1]
