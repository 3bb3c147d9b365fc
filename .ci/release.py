"""Versions, bounds between the packages, and release notes. Needs only Python and git.

All packages have one version and are released together by the tag vVERSION. Each package accepts
its siblings from that version on, within the minor series: cls-train 1.2.3 needs cls-data~=1.2.3.
"""

import argparse
import datetime
import re
import subprocess
import sys
import tomllib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

NUMBER = r"(0|[1-9][0-9]*)"
VERSION = re.compile(rf"{NUMBER}\.{NUMBER}\.{NUMBER}(?:rc([1-9][0-9]*))?")
VERSION_FORM = "MAJOR.MINOR.PATCH, such as 1.2.3, or a candidate such as 1.2.3rc1"
REQUIREMENT = re.compile(r"(?P<name>[A-Za-z0-9._-]+)(?P<extras>\[[^]]*\])?(?P<bound>.*)")
HEADING = re.compile(r"^## (?P<title>.*)$", re.MULTILINE)
RELEASE_TITLE = re.compile(r"\[(?P<version>[^]]+)\] - (?P<date>[0-9]{4}-[0-9]{2}-[0-9]{2})")
UNRELEASED = "[Unreleased]"
ENTRY = re.compile(r"^- \S", re.MULTILINE)
PARTS = ("major", "minor", "patch")
MAIN = "origin/main"


class ReleaseError(Exception):
    """The repository, the tag, and the changelog do not agree."""


class UsageError(ReleaseError):
    """An argument is not a version or a tag."""


@dataclass(frozen=True)
class Project:
    """A pyproject.toml file: its path, text, and `[project]` table."""

    path: Path
    text: str
    table: dict[str, Any]

    @property
    def name(self) -> str:
        """Name of the package."""
        return str(self.table["name"])

    @property
    def requirements(self) -> list[str]:
        """Requirements of the package and of its extras."""
        requirements = list(self.table.get("dependencies", []))
        for extra in self.table.get("optional-dependencies", {}).values():
            requirements += extra
        return requirements


def read_projects(root: Path) -> list[Project]:
    """Return the projects of the repository, sorted by path."""
    paths = [*root.glob("packages/*/pyproject.toml"), *root.glob("apps/*/pyproject.toml")]
    if not paths:
        raise ReleaseError(f"{root}: no packages; expected packages/*/pyproject.toml")
    projects = []
    for path in sorted(paths):
        projects.append(parse_project(path, path.read_text(encoding="utf-8")))
    return projects


def parse_project(path: Path, text: str) -> Project:
    """Return the project of a file, after checking that it states its name and version."""
    try:
        table = tomllib.loads(text).get("project", {})
    except tomllib.TOMLDecodeError as error:
        raise ReleaseError(f"{path}: {error}") from error
    for key in ("name", "version"):
        if not isinstance(table.get(key), str):
            raise ReleaseError(f"{path}: [project] has no {key}")
    return Project(path, text, table)


def normalize_name(name: str) -> str:
    """Return the form in which names of packages are compared."""
    return re.sub(r"[-_.]+", "-", name).lower()


def parse_version(version: str) -> tuple[float, ...]:
    """Return a key that sorts versions; a candidate is older than its release."""
    match = VERSION.fullmatch(version)
    if match is None:
        raise ReleaseError(f"{version!r} is not a version; expected {VERSION_FORM}")
    major, minor, patch, candidate = match.groups()
    return int(major), int(minor), int(patch), float(candidate or "inf")


def check_versions(projects: list[Project], expected: str | None = None) -> str:
    """Check that all packages have one version, and return it."""
    counts = Counter(project.table["version"] for project in projects)
    version = expected or counts.most_common(1)[0][0]
    lines = []
    for project in projects:
        if project.table["version"] != version:
            lines.append(f"  {project.name} has version {project.table['version']}")
    if lines:
        raise ReleaseError("\n".join([f"All packages must have version {version}:", *lines]))
    parse_version(version)
    return str(version)


def check_bounds(projects: list[Project], version: str) -> None:
    """Check that each package bounds its siblings to the minor series of `version`."""
    names = {normalize_name(project.name) for project in projects}
    lines = []
    for project in projects:
        for requirement in project.requirements:
            match = REQUIREMENT.match(requirement)
            if match is None or normalize_name(match["name"]) not in names:
                continue
            expected = f"{normalize_name(match['name'])}{match['extras'] or ''}~={version}"
            if requirement != expected:
                lines.append(f"  {project.name} needs {requirement!r}, expected {expected!r}")
    if lines:
        raise ReleaseError("\n".join(["Siblings are bound to one minor series:", *lines]))


def check_repository(projects: list[Project], expected: str | None = None) -> None:
    """Check that all packages name one repository, and that it is `expected` if that is given."""
    first = projects[0].table.get("urls", {}).get("Repository")
    address = (expected or first or "").rstrip("/")
    lines = []
    for project in projects:
        given = project.table.get("urls", {}).get("Repository")
        if not given or given != address:
            lines.append(f"  {project.name} has {given!r}")
    if lines:
        heading = f"[project.urls] Repository must be {address!r}:"
        raise ReleaseError("\n".join([heading, *lines]))


def read_sections(root: Path) -> dict[str, str]:
    """Return the sections of CHANGELOG.md by title, without the brackets: a version or Unreleased.

    Checks that titles are unique and that each release has a date.
    """
    changelog = root / "CHANGELOG.md"
    if not changelog.is_file():
        raise ReleaseError(f"{changelog}: missing; expected a section for each release")
    text = changelog.read_text(encoding="utf-8")
    headings = list(HEADING.finditer(text))
    if not headings or headings[0]["title"] != UNRELEASED:
        raise ReleaseError(f"CHANGELOG.md: the first section must be '## {UNRELEASED}'")
    ends = [heading.start() for heading in headings[1:]] + [len(text)]

    sections: dict[str, str] = {}
    for heading, end in zip(headings, ends, strict=True):
        title = heading["title"]
        name = "Unreleased" if title == UNRELEASED else read_release_title(title)
        if name in sections:
            raise ReleaseError(f"CHANGELOG.md: two sections '## [{name}]'; join them")
        sections[name] = text[heading.end() : end].strip()
    return sections


def read_release_title(title: str) -> str:
    """Return the version in the title of a changelog section, after checking its date."""
    match = RELEASE_TITLE.fullmatch(title)
    form = "'## [1.2.3] - 2026-01-31'"
    if match is None:
        raise ReleaseError(f"CHANGELOG.md: '## {title}' is not a section; expected {form}")
    try:
        datetime.date.fromisoformat(match["date"])
    except ValueError as error:
        raise ReleaseError(f"CHANGELOG.md: '## {title}': {error}; expected {form}") from error
    parse_version(match["version"])
    return match["version"]


def find_notes(root: Path, version: str) -> str:
    """Return the changelog section of a version."""
    sections = read_sections(root)
    if version not in sections:
        raise ReleaseError(
            f"CHANGELOG.md has no section for {version}; to write it, run: "
            f"python3 .ci/release.py prepare {version}"
        )
    if not ENTRY.search(sections[version]):
        raise ReleaseError(f"CHANGELOG.md: the section for {version} has no entry '- …'")
    return sections[version]


def read_tag(tag: str) -> str:
    """Return the version of a tag."""
    version = tag.removeprefix("v")
    if not tag.startswith("v") or VERSION.fullmatch(version) is None:
        raise UsageError(f"{tag!r} is not a release tag; expected v and {VERSION_FORM}")
    return version


def run_git(root: Path, *arguments: str, accepted: Sequence[int] = (0,)) -> tuple[int, str]:
    """Return the exit code of git, one of `accepted`, and what it printed."""
    command = ["git", "-C", str(root), *arguments]
    try:
        result = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        raise ReleaseError(f"git cannot be run: {error}") from error
    if result.returncode not in accepted:
        raise ReleaseError(f"git {arguments[0]} failed: {result.stderr.strip()}")
    return result.returncode, result.stdout.rstrip("\n")


def find_commit(root: Path, name: str) -> str | None:
    """Return the commit that a name such as refs/tags/v1.2.3 stands for; None if there is none."""
    options = ("--verify", "--quiet", "--end-of-options")
    code, commit = run_git(root, "rev-parse", *options, f"{name}^{{commit}}", accepted=(0, 1))
    return commit if code == 0 else None


def newest_version(root: Path) -> str | None:
    """Return the version of the newest release tag; None before the first release."""
    versions = []
    for tag in run_git(root, "tag", "--list", "v*")[1].split():
        if VERSION.fullmatch(tag.removeprefix("v")):
            versions.append(tag.removeprefix("v"))
    return max(versions, key=parse_version, default=None)


def check_commit(root: Path, tag: str, main: str) -> None:
    """Check that HEAD can be tagged: nothing is uncommitted, and `main` contains it."""
    head = find_commit(root, "HEAD")
    if head is None:
        raise ReleaseError(f"{root}: no commit yet; {tag} needs one")
    changes = run_git(root, "status", "--porcelain")[1].splitlines()
    if changes:
        more = "" if len(changes) == 1 else f" and {len(changes) - 1} more"
        raise ReleaseError(
            f"Commit {head[:9]} lacks changes of this folder: {changes[0][3:]}{more}. "
            "Commit or remove them; a tag contains only what is committed"
        )
    tagged = find_commit(root, f"refs/tags/{tag}")
    if tagged not in (None, head):
        raise ReleaseError(
            f"{tag} exists and names commit {tagged[:9]}, not {head[:9]}; "
            f"run: git switch --detach {tag}, or release another version"
        )
    is_shallow = run_git(root, "rev-parse", "--is-shallow-repository")[1] == "true"
    if is_shallow:
        raise ReleaseError("This clone lacks older commits; run: git fetch --unshallow --tags")
    if find_commit(root, main) is None:
        raise ReleaseError(f"{main} is not in this clone; run: git fetch origin, or give --main")
    code, _ = run_git(root, "merge-base", "--is-ancestor", head, main, accepted=(0, 1))
    if code != 0:
        raise ReleaseError(
            f"Commit {head[:9]} is not on {main}; merge it first, or run: git fetch origin"
        )


def choose_version(given: str, newest: str | None) -> str:
    """Return the version to release: the one given, or the next after the newest tag."""
    if given not in PARTS:
        if VERSION.fullmatch(given) is None:
            parts = ", ".join(PARTS)
            raise UsageError(f"{given!r} is not a version; expected {parts}, or {VERSION_FORM}")
        if newest is not None and parse_version(given) <= parse_version(newest):
            raise ReleaseError(f"{given} is not newer than the newest tag, v{newest}")
        return given

    *numbers, candidate = parse_version(newest or "0.0.0")
    is_candidate = candidate != float("inf")
    changed = PARTS.index(given)
    # 1.0.0 is the next major, minor, and patch version after 1.0.0rc1.
    if not is_candidate or any(numbers[changed + 1 :]):
        numbers[changed] += 1
        numbers[changed + 1 :] = [0.0] * (len(PARTS) - changed - 1)
    return ".".join(f"{number:.0f}" for number in numbers)


def set_version(project: Project, version: str, names: set[str]) -> Project:
    """Return the project with a new version and new bounds of its siblings."""
    text, count = re.subn(
        r'^version = ".*"$', f'version = "{version}"', project.text, flags=re.MULTILINE
    )
    if count != 1:
        raise ReleaseError(f'{project.path}: expected one line version = "…", got {count}')
    siblings = "|".join(sorted(names))
    requirement = rf'(?<!= )"(?P<name>{siblings})(?P<extras>\[[^]"]*\])?(?:[~=<>!][^"]*)?"'
    text = re.sub(requirement, rf'"\g<name>\g<extras>~={version}"', text)
    return parse_project(project.path, text)


def check_notes(root: Path, version: str) -> None:
    """Check that a version has release notes, and that no change came after them."""
    find_notes(root, version)
    if ENTRY.search(read_sections(root)["Unreleased"]):
        raise ReleaseError(
            f"CHANGELOG.md: {UNRELEASED} has entries, so this commit has more than {version}; "
            f"tag the commit that released {version}, or prepare another version"
        )


def check(root: Path, tag: str | None, repository: str | None, main: str) -> str:
    """Check the repository, and with a tag, that it can be released; return a summary."""
    projects = read_projects(root)
    version = check_versions(projects, None if tag is None else read_tag(tag))
    check_bounds(projects, version)
    check_repository(projects, repository)
    read_sections(root)
    if tag is not None:
        check_notes(root, version)
        check_commit(root, tag, main)
    return f"{len(projects)} packages, including the apps, have version {version} and its bounds"


def prepare(root: Path, given: str) -> str:
    """Write the version, the bounds, and the changelog heading of the next release."""
    projects = read_projects(root)
    version = choose_version(given, newest_version(root))
    current = check_versions(projects)
    if parse_version(version) < parse_version(current):
        raise ReleaseError(
            f"{version} is older than the packages, which have version {current}; if tags are "
            "missing, run: git fetch --tags"
        )
    sections = read_sections(root)
    if version in sections:
        raise ReleaseError(f"CHANGELOG.md already has a section for {version}")
    if not ENTRY.search(sections["Unreleased"]):
        raise ReleaseError(f"CHANGELOG.md: {UNRELEASED} has no entry '- …'; describe the changes")

    names = {project.name for project in projects}
    changed = [set_version(project, version, names) for project in projects]
    check_bounds(changed, check_versions(changed, version))

    for project in changed:
        project.path.write_text(project.text, encoding="utf-8")
    changelog = root / "CHANGELOG.md"
    title = f"## [{version}] - {datetime.datetime.now(datetime.UTC).date()}"
    text = changelog.read_text(encoding="utf-8")
    text = text.replace(f"## {UNRELEASED}\n", f"## {UNRELEASED}\n\n{title}\n", 1)
    changelog.write_text(text, encoding="utf-8")
    return (
        f"Prepared {version}. Review `git diff`, commit it as 'release: {version}', and merge it. "
        f"Then tag that commit of main, see docs/releasing.md"
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command. Exits with a message if something does not agree."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="docs/releasing.md describes a release.",
    )
    root = Path(__file__).parents[1]
    parser.add_argument("--root", type=Path, default=root, help="the repository (default: this)")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    checking = commands.add_parser("check", help="check versions, bounds, and the changelog")
    checking.add_argument("--tag", help="also check that this tag, such as v1.2.3, can be released")
    checking.add_argument(
        "--repository", help="address that the metadata of each package must name"
    )
    checking.add_argument(
        "--main", default=MAIN, help="branch that must contain the tag (default: %(default)s)"
    )
    preparing = commands.add_parser("prepare", help="write the version of the next release")
    preparing.add_argument("version", metavar="VERSION|major|minor|patch")
    notes = commands.add_parser("notes", help="print the changelog section of a tag")
    notes.add_argument("tag", metavar="TAG")

    options = parser.parse_args(arguments)
    try:
        if options.command == "check":
            output = check(options.root, options.tag, options.repository, options.main)
        elif options.command == "prepare":
            output = prepare(options.root, options.version)
        else:
            output = find_notes(options.root, read_tag(options.tag))
    except ReleaseError as error:
        print(f"release.py: {error}", file=sys.stderr)
        sys.exit(2 if isinstance(error, UsageError) else 1)
    print(output)


if __name__ == "__main__":
    main()
