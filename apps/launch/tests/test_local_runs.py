"""The local target, with a `docker` on PATH that runs the container's command as a process."""

import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).resolve().parents[3]
IMAGE = f"image=127.0.0.1:9/team/cls-train@sha256:{'ab' * 32}"

FAKE_DOCKER = f"""
export FAKE_STATE="$PWD/containers"
exec {sys.executable} "$(dirname "$0")/docker.py" "$@"
"""

DOCKER_PROGRAM = """
import json, os, signal, subprocess, sys
from pathlib import Path

state = Path(os.environ["FAKE_STATE"])
state.mkdir(exist_ok=True)
verb, *rest = sys.argv[1:]

def inspect(name):
    record = json.loads((state / name).read_text())
    code_file = state / f"{name}.code"
    if code_file.exists():
        return {"Status": "exited", "ExitCode": int(code_file.read_text())}
    return {"Status": "running", "ExitCode": 0, "Pid": record["pid"]}

if verb == "run":
    name = rest[rest.index("--name") + 1]
    index = next(i for i, word in enumerate(rest) if "@sha256:" in word)
    command = [sys.executable, os.environ["FAKE_ENTRYPOINT"], *rest[index + 1:]]
    runner = "import subprocess, sys, signal; from pathlib import Path\\n"
    runner += "child = subprocess.Popen(sys.argv[2:])\\n"
    runner += "signal.signal(signal.SIGTERM, lambda *_: child.terminate())\\n"
    runner += "Path(sys.argv[1]).write_text(str(child.wait()))"
    with open(state / f"{name}.log", "w") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", runner, str(state / f"{name}.code"), *command],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
        )
    (state / name).write_text(json.dumps({"pid": process.pid, "options": rest[:index]}))
elif verb == "container":
    name = next(word for word in rest if word.startswith("name="))[6:-1]
    print("id" if (state / name).exists() else "")
elif verb == "image":
    if rest[1] != "cls-train":
        sys.exit(f"Error: No such image: {rest[1]}")
    labels = {"org.opencontainers.image.revision": "f" * 40}
    print(json.dumps([{"Id": "sha256:" + "12" * 32, "Config": {"Labels": labels}}]))
elif verb == "inspect":
    print(json.dumps([{"State": inspect(rest[0])}]))
elif verb == "rm":
    (state / rest[0]).unlink()
    (state / f"{rest[0]}.code").unlink()
elif verb == "logs":
    print((state / f"{rest[0]}.log").read_text(), file=sys.stderr)  # as a container's errors
elif verb == "stop":
    os.kill(inspect(rest[0])["Pid"], signal.SIGTERM)
"""


@pytest.fixture
def docker(add_command: Any, tmp_path: Path) -> Iterator[Path]:
    """Put the stand-in on PATH, and yield the folder with its state."""
    add_command("docker", FAKE_DOCKER)
    (tmp_path / "bin" / "docker.py").write_text(DOCKER_PROGRAM)
    state = tmp_path / "empty" / "containers"
    yield state
    for record in state.glob("*"):
        if record.suffix:
            continue
        with suppress(ProcessLookupError):
            os.killpg(json.loads(record.read_text())["pid"], signal.SIGKILL)


def wait_for(action: Any, expected: str, seconds: float) -> str:
    """Call an action until its result starts with a text, and return the result."""
    deadline = time.monotonic() + seconds
    while True:
        found = str(action())
        if found.startswith(expected) or time.monotonic() > deadline:
            return found
        time.sleep(0.1)


def test_a_container_runs_ends_and_is_replaced_by_the_next_one_of_its_name(
    run_launch: Any, docker: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = tmp_path / "entry.py"
    entry.write_text(
        "import os, sys, time\n"
        "print(sys.argv[1:], os.environ['WANDB_API_KEY'], flush=True)\n"
        f"while not os.path.exists({str(tmp_path / 'end')!r}): time.sleep(0.02)\n"
        "sys.exit(3)\n"
    )
    monkeypatch.setenv("FAKE_ENTRYPOINT", str(entry))
    monkeypatch.setenv("WANDB_API_KEY", "planted")
    launch = (
        IMAGE,
        "allow_dirty=true",
        "run.name=one",
        f"target.folders=[{tmp_path}]",
        "secrets=[WANDB_API_KEY]",
        "resources.gpus=0",
        "--",
        f"run.root={tmp_path}/runs",
    )
    assert run_launch(*launch)[:2] == (0, "one: started with docker\n")
    assert run_launch("status", "one")[1] == "one: running\n"
    code, _, err = run_launch(*launch)
    assert code == 2
    assert "'one' is the name of a running container" in err

    (tmp_path / "end").touch()
    status = wait_for(lambda: run_launch("status", "one")[1], "one: exited", 20)
    assert status == "one: exited with code 3\n"
    log = run_launch("logs", "one")[1]
    assert log.startswith(f"['run.root={tmp_path}/runs', 'run.name=one'] planted")
    options = json.loads((docker / "one").read_text())["options"]
    assert "WANDB_API_KEY" in options
    assert not any("planted" in option for option in options)
    assert run_launch(*launch)[0] == 0
    assert run_launch("status", "two")[0] == 2


def test_folders_and_secrets_of_this_machine_are_checked(
    run_launch: Any, docker: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    launch = (IMAGE, "allow_dirty=true", "run.name=one", "resources.gpus=0")
    remote = ("--", "run.remote=gs://bucket/runs")
    for setting, message in (
        ("secrets=[WANDB_API_KEY]", "is not set here; export it first"),
        ("secrets={A: B}", "secrets=[A]"),
        (f"target.folders=[{tmp_path}/x]", "no such folder"),
        ("target.folders=[relative]", "absolute path"),
        ("target.runtime=lxc", "'docker' or 'podman'"),
    ):
        code, _, err = run_launch(*launch, setting, *remote)
        assert (code, message in err) == (2, True), err
    assert not docker.exists()


@pytest.mark.usefixtures("docker")
def test_an_image_of_this_machine_needs_no_registry(run_launch: Any) -> None:
    launch = ("allow_dirty=true", "run.name=one", "resources.gpus=0", "--dry-run")
    remote = ("--", "run.remote=gs://bucket/runs")
    code, _, err = run_launch("image=cls-train", *launch, *remote)
    assert code == 2
    assert "cls-train was built from commit ffffff" in err
    code, out, _ = run_launch("image=cls-train", "allow_other_commit=true", *launch, *remote)
    assert code == 0
    assert f"  sha256:{'12' * 32} \\\n" in out
    code, _, err = run_launch("image=other", *launch, *remote)
    assert code == 2
    assert "No such image: other; build it" in err


@pytest.mark.slow
def test_a_stopped_run_resumes_from_its_remote_folder_under_the_same_name(
    run_launch: Any, docker: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_ENTRYPOINT", str(REPOSITORY / "apps" / "train"))
    folders = f"[{tmp_path}]"
    pushed = tmp_path / "bucket" / "spot"
    pushed.parent.mkdir()

    def has_pushed_or_ended() -> bool:
        return any(pushed.rglob("*.ckpt*")) or (docker / "spot.code").exists()

    def launch(machine: str, *more: str) -> int:
        code, _, err = run_launch(
            IMAGE,
            "allow_dirty=true",
            "run.name=spot",
            f"target.folders={folders}",
            "resources.gpus=0",
            "--",
            "debug=tiny",
            "data=synthetic_tiny",
            "logger=csv",
            f"data.root={tmp_path}/data",
            f"run.remote={tmp_path}/bucket",
            f"run.root={tmp_path}/{machine}",
            "trainer.max_epochs=8",
            *more,
        )
        assert code == 0, err
        return int(code)

    launch("first")
    wait_for(has_pushed_or_ended, "True", 120)
    run_launch("stop", "spot")
    status = wait_for(lambda: run_launch("status", "spot")[1], "spot: exited", 60)
    assert status == "spot: exited with code 143\n", run_launch("logs", "spot")[1]

    launch("second")
    status = wait_for(lambda: run_launch("status", "spot")[1], "spot: exited", 300)
    log = run_launch("logs", "spot")[1]
    assert status == "spot: exited with code 0\n", log
    assert (tmp_path / "second" / "spot" / "summary.json").exists()
    assert "resum" in log
