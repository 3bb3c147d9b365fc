"""Rows C11 and D4: what a release publishes, from which versions, and with which permissions."""

import contextlib
import hashlib
import io
import json
import os
import re
import runpy
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
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
NAMES_OWNER = (
    r"(packages|apps)/[\w-]+/(pyproject\.toml|README\.md)"
    r"|\.github/(CODEOWNERS|ISSUE_TEMPLATE/config\.yml)|docs/releasing\.md"
)
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
    code = 0
    output, error = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(error):
        try:
            MODULE["main"](["--root", str(root), *arguments])
        except SystemExit as stop:
            code = int(stop.code or 0)  # a text would not be printed here
    return subprocess.CompletedProcess(arguments, code, output.getvalue(), error.getvalue())


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
    commit_to_main(copy)
    return copy


def commit_to_main(root: Path) -> None:
    """Commit everything, as if it were merged and fetched."""
    run_git(root, "add", "--all")
    run_git(root, "commit", "--quiet", "--allow-empty", "--message=change")
    run_git(root, "update-ref", "refs/remotes/origin/main", "HEAD")


@pytest.fixture
def prepared(repository: Path) -> Path:
    """Return such a repository whose newest commit can be released as 0.2.0."""
    assert release(repository, "prepare", "0.2.0").returncode == 0
    commit_to_main(repository)
    return repository


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
        (["v0.2.0rc1"], "minor", "0.2.0"),
        (["v0.2.1rc1"], "minor", "0.3.0"),
        (["v1.0.0rc1"], "major", "1.0.0"),
        (["v1.0.1rc2"], "patch", "1.0.1"),
        (["v1.1.0rc1"], "major", "2.0.0"),
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
    commit_to_main(repository)
    result = release(repository, "check", "--tag", f"v{version}")
    assert result.returncode == 0, result.stderr
    assert release(repository, "notes", f"v{version}").stdout == "### Fixed\n\n- A message.\n"

    for project, text in zip(copied_projects(repository), before, strict=True):
        current = read_table(PROJECTS[0])["version"]
        assert project.read_text().replace(version, current) == text  # nothing else changes


@pytest.mark.parametrize(
    ("tags", "version", "message"),
    [
        ([], "mnior", "'mnior' is not a version; expected major, minor, patch, or MAJOR."),
        ([], "1.0", "'1.0' is not a version"),
        ([], "v1.0.0", "'v1.0.0' is not a version"),
        ([], "1.0.0-rc1", "'1.0.0-rc1' is not a version"),
        ([], "01.0.0", "'01.0.0' is not a version"),
        ([], "1.0.0\n", "'1.0.0\\n' is not a version"),
        ([], "1.1\N{ARABIC-INDIC DIGIT TWO}.0", "is not a version"),
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
    assert result.returncode == (2 if "is not a version" in message else 1)
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert [path.read_text() for path in copied_projects(repository)] == before
    assert (repository / "CHANGELOG.md").read_text() == CHANGELOG


@pytest.mark.parametrize(
    "tag",
    [
        "",
        "v",
        "v1",
        "v0.2",
        "0.2.0",
        "V0.2.0",
        "vv0.2.0",
        " v0.2.0",
        "v0.2.0 ",
        "v0.2.0\n",
        "v00.2.0",
        "v0.02.0",
        "v0.2.0rc0",
        "v0.2.0rc",
        "v0.2.0-rc1",
        "v0.2.0.post1",
        "v0.2.0.dev1",
        "v0.2.0+local",
        "v0.2.0-dirty",
        "v0.2.\N{ARABIC-INDIC DIGIT ZERO}",
        "refs/tags/v0.2.0",
    ],
)
@pytest.mark.parametrize("command", [["check", "--tag"], ["notes"]])
def test_a_tag_that_is_no_version_is_refused(command: list[str], tag: str) -> None:
    result = release(ROOT, *command, tag)
    assert result.returncode == 2
    assert f"{tag!r} is not a release tag; expected v and MAJOR.MINOR.PATCH" in result.stderr
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize("tag", ["v9.9.9", "v0.2.1", "v0.2.0rc1"])
def test_a_tag_of_another_version_is_refused(prepared: Path, tag: str) -> None:
    run_git(prepared, "tag", "v0.2.0")  # a second tag of this commit
    assert release(prepared, "check", "--tag", "v0.2.0").returncode == 0
    run_git(prepared, "tag", tag)
    result = release(prepared, "check", "--tag", tag)
    assert result.returncode == 1
    assert f"All packages must have version {tag[1:]}" in result.stderr


def add_file(root: Path) -> None:
    (root / "new.txt").touch()


def commit_elsewhere(root: Path) -> None:
    run_git(root, "switch", "--quiet", "--create", "side")
    run_git(root, "commit", "--quiet", "--allow-empty", "--message=side")


def tag_older_commit(root: Path) -> None:
    run_git(root, "tag", "--annotate", "--message=0.2.0", "v0.2.0")
    run_git(root, "commit", "--quiet", "--allow-empty", "--message=later")
    run_git(root, "update-ref", "refs/remotes/origin/main", "HEAD")


def describe_another_change(root: Path) -> None:
    replace(root / "CHANGELOG.md", r"^## \[Unreleased\]$", "## [Unreleased]\n\n- Another.")
    commit_to_main(root)


def forget_main(root: Path) -> None:
    run_git(root, "update-ref", "-d", "refs/remotes/origin/main")


def remove_repository(root: Path) -> None:
    shutil.rmtree(root / ".git")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (add_file, "lacks changes of this folder: new.txt. Commit or remove"),
        (commit_elsewhere, "is not on origin/main; merge it first"),
        (tag_older_commit, "v0.2.0 exists and names commit"),
        (describe_another_change, "[Unreleased] has entries"),
        (forget_main, "origin/main is not in this clone; run: git fetch origin"),
        (remove_repository, "not a git repository"),
    ],
)
def test_a_commit_that_is_not_the_release_is_refused(
    prepared: Path, change: Callable[[Path], None], message: str
) -> None:
    assert release(prepared, "check", "--tag", "v0.2.0").returncode == 0
    change(prepared)
    result = release(prepared, "check", "--tag", "v0.2.0")
    assert result.returncode == 1
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1


def clone_tag(source: Path, clone: Path, *options: str) -> None:
    """Check out v0.2.0 as GitHub's action does: refs are fetched, and HEAD is detached."""
    run_git(source, "update-ref", "refs/heads/main", "HEAD")
    run_git(source, "init", "--quiet", str(clone))
    run_git(clone, "remote", "add", "origin", source.as_uri())
    refs = ["+refs/heads/*:refs/remotes/origin/*", "+refs/tags/*:refs/tags/*"]
    if options:
        refs = ["+refs/tags/v0.2.0:refs/tags/v0.2.0"]
    run_git(clone, "fetch", "--quiet", "--no-tags", *options, "origin", *refs)
    run_git(clone, "checkout", "--quiet", "--force", "refs/tags/v0.2.0")


@pytest.mark.parametrize("tag_options", [[], ["--annotate", "--message=0.2.0"]])
def test_a_checkout_with_history_is_released(
    prepared: Path, tmp_path_factory: pytest.TempPathFactory, tag_options: list[str]
) -> None:
    run_git(prepared, "tag", *tag_options, "v0.2.0")
    clone = tmp_path_factory.mktemp("clone")
    clone_tag(prepared, clone)
    result = release(clone, "check", "--tag", "v0.2.0")
    assert result.returncode == 0, result.stderr


def test_a_checkout_without_history_is_refused(
    prepared: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    run_git(prepared, "tag", "v0.2.0")
    clone = tmp_path_factory.mktemp("clone")
    clone_tag(prepared, clone, "--depth=1")
    result = release(clone, "check", "--tag", "v0.2.0")
    assert result.returncode == 1
    assert "run: git fetch --unshallow --tags" in result.stderr


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


def test_only_files_that_a_fork_replaces_name_the_owner() -> None:
    owner = read_table(PROJECTS[0])["urls"]["Repository"].split("/")[3]
    command = ["git", "-C", str(ROOT), "grep", "--files-with-matches", owner]
    found = subprocess.run(command, capture_output=True, text=True, check=False).stdout.split()
    if not (ROOT / ".git").exists():
        pytest.skip("this is no git repository")
    others = [name for name in found if not re.fullmatch(NAMES_OWNER, name)]
    assert "docs/releasing.md" in found  # the command that replaces the name
    assert others == []


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
    assert commands[0] == f"python3 .ci/release.py check {tag}"
    assert "bash .ci/run" in run_commands(workflow_jobs("release.yml")["test"])
    assert {"build", "test"} <= transitive_needs("publish")


def transitive_needs(name: str) -> set[str]:
    """Return the jobs of release.yml that must succeed before a job starts."""
    needs = workflow_jobs("release.yml")[name].get("needs", [])
    direct = {needs} if isinstance(needs, str) else set(needs)
    return direct.union(*map(transitive_needs, direct))


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


@pytest.mark.parametrize("name", ["release.yml", "images.yml"])
def test_artifacts_are_taken_by_the_id_that_their_job_reported(name: str) -> None:
    jobs = workflow_jobs(name)
    downloads = 0
    for job in jobs.values():
        for step in job["steps"]:
            if not step.get("uses", "").startswith("actions/download-artifact@"):
                continue
            downloads += 1
            assert "name" not in step["with"]
            given = step["with"]["artifact-ids"]
            match = re.fullmatch(r"\$\{\{ needs\.(\w+)\.outputs\.(\w+) \}\}", given)
            assert match is not None, given
            producer = jobs[match[1]]
            assert match[1] in job["needs"]
            output = re.fullmatch(
                r"\$\{\{ steps\.(\w+)\.outputs\.artifact-id \}\}", producer["outputs"][match[2]]
            )
            assert output is not None
            [upload] = [other for other in producer["steps"] if other.get("id") == output[1]]
            assert upload["uses"].startswith("actions/upload-artifact@")
    assert downloads > 0


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.stem)
def test_no_cache_is_shared_between_workflows(workflow: Path) -> None:
    assert "cache" not in workflow.read_text()


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.stem)
def test_checkouts_keep_no_credentials(workflow: Path) -> None:
    for job in yaml.safe_load(workflow.read_text())["jobs"].values():
        for step in job["steps"]:
            if step.get("uses", "").startswith("actions/checkout@"):
                assert step["with"]["persist-credentials"] is False


def test_published_files_are_built_without_other_dependencies() -> None:
    commands = run_commands(workflow_jobs("release.yml")["build"])
    installs = [command for command in commands if "pip install" in command]
    assert installs == ["python3 -m pip install -r .ci/tools.txt"]
    tools = (ROOT / ".ci" / "tools.txt").read_text()
    assert re.findall(r"^([\w-]+)==", tools, flags=re.M) == ["flit-core", "uv"]
    assert (
        "--build-constraints .ci/tools.txt --require-hashes\n"
        in (ROOT / ".ci" / "build").read_text()
    )


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
        "test": {"contents": "read"},
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
def test_the_release_is_built_in_a_fresh_clone(tmp_path: Path) -> None:
    clone = tmp_path / "clone"
    listed = subprocess.run(
        ["git", "-C", str(ROOT), "ls-files", "-z"], capture_output=True, text=True, check=True
    )
    for name in listed.stdout.split("\0")[:-1]:
        if (ROOT / name).is_file():
            (clone / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, clone / name)
    run_git(clone, "init", "--quiet", "--initial-branch=main")
    assert release(clone, "prepare", "9.8.7").returncode == 0
    commit_to_main(clone)
    run_git(clone, "tag", "v9.8.7")

    subprocess.run(
        ["uv", "venv", "--quiet", "--seed", "--python=3.11", tmp_path / "python"], check=True
    )
    environment = {name: value for name, value in os.environ.items() if name != "VIRTUAL_ENV"}
    environment |= {
        "PATH": f"{tmp_path / 'python' / 'bin'}:{os.environ['PATH']}",
        "GITHUB_REF_NAME": "v9.8.7",
        "GITHUB_SERVER_URL": "https://github.com",
        "GITHUB_REPOSITORY": "/".join(read_table(PROJECTS[0])["urls"]["Repository"].split("/")[3:]),
    }
    commands = run_commands(workflow_jobs("release.yml")["build"])
    commands += ["bash .ci/check-dist", "uv lock --quiet", "bash .ci/write-sboms sboms"]
    for command in commands:
        subprocess.run(["bash", "-ec", command], cwd=clone, env=environment, check=True)

    dist = sorted(path.name for path in (clone / "dist").glob("cls_*"))
    packages = [name.replace("-", "_") for name in PACKAGES]
    assert dist == sorted(
        [f"{name}-9.8.7-py3-none-any.whl" for name in packages]
        + [f"{name}-9.8.7.tar.gz" for name in packages]
    )
    assert (clone / "notes" / "notes.md").stat().st_size > 0
    for name in packages:
        sbom = json.loads((clone / "sboms" / f"{name}.cdx.json").read_text())
        described = sbom["metadata"]["component"]
        assert (described["name"], described["version"]) == (name.replace("_", "-"), "9.8.7")
        versions = {part["name"]: part["version"] for part in sbom["components"]}
        siblings = {part: version for part, version in versions.items() if part in NAMES}
        assert set(siblings.values()) <= {"9.8.7"}


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
