"""SkyPilot: what is rendered, refused, and sent to its command."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from cls_launch.errors import LaunchError, LaunchFailedError
from cls_launch.targets import skypilot
from cls_launch.targets.skypilot import SkyPilotSettings, SkyPilotTarget
from cls_launch.targets.target import Job, Resources, TakenName

MakeJob = Callable[..., Job]
AddCommand = Callable[[str, str], None]

PARSE = """
import json, sys
import jsonschema, sky, yaml
from sky.utils import schemas
tasks = []
for path in sys.argv[1:]:
    with open(path) as stream:
        written = yaml.safe_load(stream)
    jsonschema.validate(written, schemas.get_task_schema())
    jsonschema.validate(written["resources"], schemas.get_resources_schema())
    if "instance_type" in written["resources"]:
        continue  # looked up in a catalog, which is downloaded
    task = sky.Task.from_yaml(path)
    (resources,) = task.resources
    tasks.append({
        "name": task.name, "run": task.run, "setup": task.setup, "spot": resources.use_spot,
        "gpus": resources.accelerators, "labels": resources.labels, "cpus": resources.cpus,
        "memory": resources.memory, "disk": resources.disk_size, "cloud": str(resources.cloud),
        "region": resources.region, "recovery": resources.job_recovery,
        "secrets": task.to_yaml_config().get("secrets"),
    })
print(json.dumps(tasks))
"""

HARD = (
    *("a b", "it's", '"', "$HOME", "`id`", "$(id)", "#x", "é\u2028", "", "a\\", "{a: [1]}", "*"),
    *("{{ x }}", "{% y %}", "100% %s", "line\nline", "--dash"),
)


def _target(**settings: Any) -> SkyPilotTarget:
    return SkyPilotTarget(SkyPilotSettings(**settings))


def _check(target: SkyPilotTarget, job: Job) -> str:
    with pytest.raises(LaunchError) as caught:
        target.check(job)
    return str(caught.value)


@pytest.mark.parametrize(
    ("settings", "changes", "expected"),
    [
        ({"infra": "Google Cloud"}, {}, "expected CLOUD[/REGION[/ZONE]]"),
        ({"infra": "k8s/mine"}, {}, "use target=kubernetes"),
        ({"infra": "slurm"}, {}, "use target=kubernetes or target=slurm"),
        ({"instance_type": "g2-standard-4"}, {}, "needs target.infra"),
        ({}, {"resources": Resources()}, "add resources.gpu=L4, or resources.gpus=0"),
        ({}, {"resources": Resources(gpu="L4:2")}, "is no GPU"),
        ({}, {"secrets": {"WANDB_API_KEY": "wandb/key"}}, "expected the name of one"),
    ],
)
def test_wrong_settings_are_refused(
    make_job: MakeJob,
    settings: dict[str, Any],
    changes: dict[str, Any],
    expected: str,
) -> None:
    assert expected in _check(_target(**settings), make_job(**changes))


@pytest.mark.parametrize("word", HARD)
def test_the_container_gets_arguments_and_variables_unchanged(
    make_job: MakeJob, add_command: AddCommand, word: str
) -> None:
    add_command("sudo", 'printf "%s\\0" "$@" "KEY is $KEY"')
    job = make_job(arguments=("a=1", word), environment={"A": word}, secrets={"KEY": "MY_KEY"})
    task = yaml.safe_load(_target().render(job))
    result = subprocess.run(
        ["bash", "-c", task["run"]],
        env={**os.environ, "MY_KEY": "planted"},
        capture_output=True,
        text=True,
        check=True,
    )
    words = result.stdout.split("\0")[:-1]
    assert words[:3] == ["--preserve-env=KEY", "docker", "run"]
    assert words[-8:] == [
        *("--env", f"A={word}", "--env", "KEY"),
        *(job.image, "a=1", word, "KEY is planted"),
    ]


def test_a_signal_to_the_task_reaches_the_container(
    make_job: MakeJob, add_command: AddCommand
) -> None:
    add_command("sudo", 'trap "exit 143" TERM; echo started; while true; do sleep 0.05; done')
    task = yaml.safe_load(_target().render(make_job()))
    process = subprocess.Popen(["bash", "-c", task["run"]], stdout=subprocess.PIPE)
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"started\n"
        process.terminate()
        assert process.wait(30) == 143


@pytest.mark.parametrize("settings", [{}, {"docker_login": "echo hi | sudo docker login"}])
@pytest.mark.parametrize("part", ["setup", "run"])
def test_scripts_are_clean_for_shellcheck(
    make_job: MakeJob, settings: dict[str, Any], part: str
) -> None:
    shellcheck = shutil.which("shellcheck", path=sysconfig.get_path("scripts"))
    if shellcheck is None:
        pytest.skip("shellcheck is not installed")
    image = f"us-docker.pkg.dev/p/cls/train@sha256:{'0' * 64}"
    job = make_job(image=image, secrets={"KEY": "MY_KEY"}, environment={"A": "b c"})
    script = yaml.safe_load(_target(**settings).render(job))[part]
    ignored = "--exclude=SC2154,SC2016"  # variables of SkyPilot, quoted `$`
    subprocess.run([shellcheck, "--shell=bash", ignored, "-"], input=script, text=True, check=True)


def test_googles_registries_need_no_login_command(make_job: MakeJob) -> None:
    google = make_job(image=f"us-docker.pkg.dev/p/cls/train@sha256:{'0' * 64}")
    task = yaml.safe_load(_target().render(google))
    assert "sudo gcloud auth configure-docker us-docker.pkg.dev --quiet\n" in task["setup"]
    login = _target(docker_login="sudo docker login r.example")
    assert "sudo docker login r.example\n" in yaml.safe_load(login.render(make_job()))["setup"]


def test_values_of_secrets_are_not_rendered(
    make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_KEY", "planted-value")
    text = _target().render(make_job(secrets={"WANDB_API_KEY": "MY_KEY"}))
    assert "planted" not in text
    assert yaml.safe_load(text)["secrets"] == {"MY_KEY": None}


def test_a_missing_command_is_named_with_its_install_line(
    make_job: MakeJob, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    target = _target()
    for call in (target.status, target.stop, lambda name: list(target.logs(name))):
        with pytest.raises(LaunchError, match=r"uv tool install skypilot\[gcp\]"):
            call("jerseys-1")
    with pytest.raises(LaunchError, match=r"uv tool install skypilot\[gcp\]"):
        target.submit(make_job())


def _record(state: str, number: int = 7, **more: Any) -> dict[str, Any]:
    return {"job_id": number, "job_name": "jerseys-1", "status": state, **more}


def _sky(jobs: list[dict[str, Any]], folder: Path) -> str:
    """Return a stand-in for `sky` that lists jobs, and keeps what it was told."""
    (folder / "queue.json").write_text(json.dumps(jobs, indent=2))
    return (
        f'echo "$@" >>{folder}/calls.txt\n'
        'if [ "$2" = queue ]; then\n'
        '  printf "\\033[32m[dim] SkyPilot API server started.\\033[0m\\n"\n'
        f"  cat {folder}/queue.json\n"
        'elif [ "$2" = launch ]; then\n'
        f"  cp ${{@: -1}} {folder}/task.yaml\n"
        "else\n"
        '  printf "one\\ntwo\\n"\n'
        "fi"
    )


def test_a_job_is_submitted_with_its_secrets_by_name(
    make_job: MakeJob,
    add_command: AddCommand,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    target = _target()
    add_command("sky", _sky([_record("FAILED_SETUP"), _record("SUCCEEDED", 3)], tmp_path))
    job = make_job(secrets={"WANDB_API_KEY": "MY_KEY"})
    monkeypatch.delenv("MY_KEY", raising=False)
    assert "export MY_KEY" in _check(target, job)
    monkeypatch.setenv("MY_KEY", "planted-value")
    target.check(job)
    assert target.find_taken([job.name]) == {}
    assert "submitted" in target.submit(job)
    assert (tmp_path / "task.yaml").read_text() == target.render(job)
    calls = (tmp_path / "calls.txt").read_text()
    assert "jobs launch --yes --detach-run --secret MY_KEY /" in calls
    assert "planted" not in calls


@pytest.mark.parametrize("state", ["PENDING", "STARTING", "RUNNING", "RECOVERING", "CANCELLING"])
def test_the_name_of_an_active_job_is_taken(
    add_command: AddCommand, tmp_path: Path, state: str
) -> None:
    add_command("sky", _sky([_record("SUCCEEDED", 3), _record(state)], tmp_path))
    taken = _target().find_taken(["jerseys-1", "jerseys-2"])
    assert taken == {"jerseys-1": TakenName(f"job 7 ({state})")}


def test_status_logs_and_stop_use_the_newest_job(add_command: AddCommand, tmp_path: Path) -> None:
    jobs = [_record("FAILED", 3, failure_reason="exit\n 1"), _record("RUNNING", recovery_count=2)]
    add_command("sky", _sky(jobs, tmp_path))
    target = _target()
    assert target.status("jerseys-1") == "RUNNING, restarted 2 times"
    assert list(target.logs("jerseys-1")) == ["one", "two"]
    assert "SIGTERM" in target.stop("jerseys-1")
    assert "jobs cancel --yes 7" in (tmp_path / "calls.txt").read_text()
    add_command("sky", _sky(jobs[:1], tmp_path))
    assert target.status("jerseys-1") == "FAILED: exit; 1"
    with pytest.raises(LaunchError, match="it is FAILED"):
        target.stop("jerseys-1")
    with pytest.raises(LaunchError, match="no managed job 'other'"):
        target.status("other")


@pytest.mark.parametrize(
    ("text", "error", "expected"),
    [
        ("Cloud access is not set up. Run: \x1b[1msky check\x1b[0m", LaunchError, "credentials"),
        ("Quota 'GPUS_ALL_REGIONS' exceeded", LaunchFailedError, "GPUS_ALL_REGIONS"),
        ("No launchable resource found for L44:1", LaunchError, "resources"),
        ("ValueError: Invalid region 'us-centrall'", LaunchError, "Check target.infra"),
        ("Failed to resolve 'github.com'", LaunchFailedError, "no network"),
        ("surprise", LaunchFailedError, "`sky jobs launch` failed: surprise"),
    ],
)
def test_errors_of_sky_are_one_message(
    make_job: MakeJob,
    add_command: AddCommand,
    tmp_path: Path,
    text: str,
    error: type[Exception],
    expected: str,
) -> None:
    (tmp_path / "error.txt").write_text(text)
    add_command(
        "sky", f'[ "$2" = queue ] && echo "[]" && exit\ncat {tmp_path}/error.txt >&2; exit 1'
    )
    with pytest.raises(error) as caught:
        _target().submit(make_job())
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "\x1b" not in str(caught.value)


def test_before_the_first_job_there_is_no_queue(make_job: MakeJob, add_command: AddCommand) -> None:
    add_command("sky", '[ "$2" = launch ] || { echo "No in-progress managed jobs." >&2; exit 1; }')
    assert _target().find_taken([make_job().name]) == {}


def test_a_command_that_hangs_is_ended(
    add_command: AddCommand, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_command("sky", "exec sleep 60")
    monkeypatch.setattr(skypilot, "_QUERY_SECONDS", 0.2)
    with pytest.raises(LaunchFailedError, match=r"has not answered for 0\.2 seconds"):
        _target().status("jerseys-1")


@pytest.mark.slow
@pytest.mark.faults
@pytest.mark.usefixtures("whole_systems")
def test_skypilot_parses_the_tasks(make_job: MakeJob, tmp_path: Path) -> None:
    python = _install_skypilot(tmp_path)
    hard = {"arguments": HARD, "environment": {"A": "${HOME} $B"}, "secrets": {"KEY": "MY_KEY"}}
    cases = [
        (_target(), make_job(**hard)),
        (
            _target(infra="gcp/us-central1", spot=False),
            make_job(resources=Resources(gpu="H100", gpus=8, cpus=16, memory_gb=64)),
        ),
        (_target(), make_job(resources=Resources(gpus=0))),
        (
            _target(infra="gcp", instance_type="g2-standard-8"),
            make_job(),
        ),
    ]
    paths = []
    for number, (target, job) in enumerate(cases):
        path = tmp_path / f"{number}.yaml"
        path.write_text(target.render(job))
        paths.append(str(path))
    environment = {
        **{"HOME": str(tmp_path), "PATH": os.environ["PATH"]},
        **{"SKYPILOT_DISABLE_USAGE_COLLECTION": "1"},
    }
    result = subprocess.run(
        [python, "-c", PARSE, *paths], env=environment, capture_output=True, text=True, cwd=tmp_path
    )
    assert result.returncode == 0, result.stderr
    first, second, third = json.loads(result.stdout.splitlines()[-1])
    for task, path in zip((first, second, third), paths[:3], strict=True):
        written = yaml.safe_load(Path(path).read_text())
        assert (task["run"], task["setup"]) == (written["run"], written["setup"])
        assert task["recovery"]["recover_on_exit_codes"] == [143]
        assert task["labels"]["app"] == "cls-train"
    assert (first["gpus"], first["cpus"], first["memory"]) == ({"L4": 1}, "8+", "32+")
    assert (first["spot"], first["disk"], first["secrets"]) == (True, 100, ["secrets:MY_KEY"])
    assert (second["cloud"], second["region"]) == ("GCP", "us-central1")
    assert (second["gpus"], second["spot"]) == ({"H100": 8}, False)
    assert third["gpus"] is None


def _install_skypilot(folder: Path) -> str:
    """Return the Python of a new environment with SkyPilot; skip the test if it cannot be had."""
    if shutil.which("uv") is None:
        pytest.skip("uv, which installs SkyPilot, is missing")
    environment = folder / "sky"
    for command in (
        ["uv", "venv", "--quiet", "--python", sys.executable, str(environment)],
        ["uv", "pip", "install", "--quiet", "--python", str(environment), "skypilot[gcp]"],
    ):
        result = subprocess.run(command, capture_output=True, text=True)
        if result.returncode != 0:
            pytest.skip(f"skypilot could not be installed: {result.stderr[-300:]}")
    return str(environment / "bin/python")
