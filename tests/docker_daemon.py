"""Docker for tests: the one of this machine, or one unpacked from Debian's packages."""

import contextlib
import os
import shutil
import subprocess
import time
from pathlib import Path

DEBIAN_SOURCES = Path("/etc/apt/sources.list.d/debian.sources")
DEBIAN_PACKAGES = [
    "containerd",
    "docker.io",
    "iptables",
    "libip4tc2",
    "libip6tc2",
    "libmnl0",
    "libnetfilter-conntrack3",
    "libnfnetlink0",
    "libnftnl11",
    "libxtables12",
    "mmdebstrap",
    "runc",
]
START_SECONDS = 60


class UnavailableError(Exception):
    """Docker cannot be run here; the message says why."""


class Docker:
    """A client of Docker, with the options that image builds need here."""

    def __init__(self) -> None:
        self.client = "docker"
        self.environment = dict(os.environ)
        self.options: list[str] = []

    def run(self, *arguments: str | Path, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run the client; its output has both streams."""
        process = subprocess.run(
            [self.client, *arguments],
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert not check or process.returncode == 0, process.stdout[-6000:]
        return process

    def is_running(self) -> bool:
        """Return whether the daemon answers."""
        return self.run("info", check=False).returncode == 0

    def build(self, context: Path, name: str, tag: str, *arguments: str) -> None:
        """Build docker/NAME.Dockerfile."""
        file = context / "docker" / f"{name}.Dockerfile"
        self.run("build", *self.options, "--tag", tag, *arguments, "--file", file, context)

    def stop(self) -> None:
        """Leave the daemon of this machine running."""


class UnpackedDocker(Docker):
    """A daemon in a mount namespace, with its programs and its storage in a folder.

    Builds start from a base of Debian's packages, because the official one may not be reachable.
    Nothing is installed, and only the cgroup `docker` is created outside of the folder.

    Args:
        folder: For the programs, the images, and the base.

    Raises:
        UnavailableError: If this is not Debian 12, or the daemon cannot run here.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        check_machine()
        self.folder = folder
        self.unpacked = folder / "unpacked"
        self._unpack()
        self.client = str(self.unpacked / "usr" / "bin" / "docker")
        self.environment["DOCKER_HOST"] = f"unix://{folder}/docker.sock"
        self.environment["DOCKER_BUILDKIT"] = "1"
        self.daemon = self._start()
        try:
            self._make_base()
        except BaseException:
            self.stop()
            raise
        self.options = ["--network", "host", "--build-arg", "BASE=base:local"]

    def in_namespace(self, *command: str | Path) -> list[str | Path]:
        """Return the command line of a program that sees the unpacked packages in /usr."""
        script = f"mount -t overlay -o lowerdir={self.unpacked}/usr:/usr overlay /usr\n"
        for name in ("etc", "opt"):  # the daemon writes there
            upper, work = self.folder / f"{name}-upper", self.folder / f"{name}-work"
            upper.mkdir(exist_ok=True)
            work.mkdir(exist_ok=True)
            layers = f"lowerdir=/{name},upperdir={upper},workdir={work}"
            script += f"mount -t overlay -o {layers} overlay /{name}\n"
        script += 'mount -t tmpfs tmpfs /run\nexec "$@"'
        return ["unshare", "--mount", "sh", "-ec", script, "sh", *command]

    def stop(self) -> None:
        """Stop the daemon and its containers."""
        self.daemon.terminate()
        self.daemon.wait(timeout=60)
        for pattern in ("*/docker/*/", "*/docker/"):
            for cgroup in Path("/sys/fs/cgroup").glob(pattern):
                with contextlib.suppress(OSError):  # the kernel still counts its last processes
                    cgroup.rmdir()

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
        for name in ("lib", "sbin"):  # links to folders of /usr
            target = self.unpacked / "usr" / name
            if (self.unpacked / name).is_dir():
                shutil.copytree(self.unpacked / name, target, symlinks=True, dirs_exist_ok=True)

    def _start(self) -> subprocess.Popen[bytes]:
        folder = self.folder
        options: list[str | Path] = ["--data-root", folder / "data"]
        options += ["--exec-root", folder / "exec"]
        options += ["--host", f"unix://{folder}/docker.sock", "--pidfile", folder / "docker.pid"]
        options += ["--iptables=false", "--ip6tables=false", "--ip-forward=false"]
        options += ["--bridge=none", "--oom-score-adjust=0"]
        log = folder / "dockerd.log"
        with log.open("wb") as output:
            daemon = subprocess.Popen(
                self.in_namespace("dockerd", *options), stdout=output, stderr=subprocess.STDOUT
            )
        start = time.monotonic()
        while not self.is_running():
            if daemon.poll() is not None or time.monotonic() - start > START_SECONDS:
                daemon.kill()
                daemon.wait()
                raise UnavailableError(f"dockerd cannot run here: {log.read_text()[-1000:]}")
            time.sleep(0.5)
        return daemon

    def _make_base(self) -> None:
        archive = self.folder / "base.tar"
        exclude = [
            f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in ("doc", "man", "locale")
        ]
        include = "--include=python3,python3-venv,ca-certificates"
        options = ["--variant=minbase", include, *exclude, "--dpkgopt=force-unsafe-io"]
        command = self.in_namespace("mmdebstrap", *options, "bookworm", archive, DEBIAN_SOURCES)
        subprocess.run(command, check=True, capture_output=True)
        self.run("import", archive, "base:local")
        archive.unlink()


def check_machine() -> None:
    """Raise an error unless Debian's packages can be unpacked and used here."""
    if os.geteuid() != 0:
        raise UnavailableError("no daemon of Docker runs, and only root can start one")
    for program in ("apt-get", "dpkg", "unshare"):
        if shutil.which(program) is None:
            raise UnavailableError(f"no daemon of Docker runs, and {program} is not installed")
    if not DEBIAN_SOURCES.is_file() or 'VERSION_ID="12"' not in Path("/etc/os-release").read_text():
        raise UnavailableError(
            f"no daemon of Docker runs, and this is not Debian 12 with {DEBIAN_SOURCES}"
        )


def find_docker(folder: Path) -> Docker:
    """Return the Docker of this machine, or else an unpacked one in a folder.

    Raises:
        UnavailableError: If neither can be had; the message says why.
    """
    if shutil.which("docker") is not None and (docker := Docker()).is_running():
        return docker
    try:
        return UnpackedDocker(folder)
    except subprocess.CalledProcessError as error:
        output = (error.stderr or b"").decode(errors="replace")[-1000:]
        raise UnavailableError(f"{error}: {output}") from error
