"""The command line: what is launched under which name, and what is refused first."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from cls_launch.errors import LaunchError
from cls_launch.git import read_commit

IMAGE = f"127.0.0.1:9/team/cls-train@sha256:{'ab' * 32}"
REMOTE = ("data=jsonl", "data.root=gs://bucket/crops", "run.remote=gs://bucket/runs")
KUBERNETES = ("target=kubernetes", f"image={IMAGE}", "allow_dirty=true", "resources.gpus=0")
SLURM = ("target=slurm", "allow_dirty=true", "resources.gpus=0")


@pytest.mark.parametrize("words", [[], ["status"], ["logs", "x"], ["stop"], ["target=no"]])
def test_help_and_every_target_are_listed(run_launch: Any, words: list[str]) -> None:
    code, out, _ = run_launch(*words, "--help")
    assert code == 0
    assert "kubernetes, local, skypilot, slurm, vertex" in out
    assert "Exit codes" in out


def test_a_dry_run_prints_the_job_and_submits_nothing(run_launch: Any, add_command: Any) -> None:
    add_command("kubectl", "echo called >&2; exit 1")
    code, out, err = run_launch(*KUBERNETES, "run.name=first", "--dry-run", "--", *REMOTE)
    assert code == 0
    assert "called" not in err
    assert "kind: Job" in out
    for argument in (*REMOTE, "run.name=first"):
        assert f"- {argument}\n" in out
    assert "commit of the image was not checked" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["target=kube", "--"], "did you mean 'kubernetes'?"),
        (["run.name=a"], "expected -- between the settings of the job and the arguments"),
        ([*KUBERNETES, "run.name=a", "experiment=jersey_numbers", "seed=1"], "expected -- between"),
        ([*SLURM, "gpu=L4", "--"], "gpu: unknown key; did you mean resources.gpu?"),
        ([*SLURM, "cpus=4", "--"], "cpus: unknown key; did you mean resources.cpus?"),
        ([*SLURM, "partition=x", "--"], "partition: unknown key; did you mean target.partition?"),
        (["target=vertex", "target.spot=false", "--"], "use target.strategy=spot, on_demand, or"),
        ([*SLURM, "run.name=", "--"], "run.name: expected at most 63 lowercase"),
        ([*SLURM, "run.name=my_run", "--"], "got 'my_run'"),
        ([*SLURM, "run.name=1st", "--"], "starting with a letter"),
        ([*SLURM, "run.name=a-", "--"], "got 'a-'"),
        ([*SLURM, "run.name=a", "--", "run.name=B"], "give it once"),
        ([*SLURM, "run.name=A", "--"], "lowercase letters"),
        ([*SLURM, f"run.name={'n' * 64}", "--"], "at most 63"),
        ([*SLURM, "--"], "run.name is required"),
        ([*SLURM, "run.name=a", "--", "run.name=b"], "give it once"),
        ([*SLURM, "run.name=a", "--", "sed=1"], "did you mean 'seed'?"),
        ([*SLURM, "run.name=a", "--", "seed=1,2"], "add -m"),
        ([*SLURM, "run.name=a", "--", "--check"], "--check: a job trains"),
        ([*SLURM, "run.name=a", "--", "data=jsonl", "data.root=/missing"], "no such folder"),
        ([*SLURM, "run.name=a", "image=x", "--"], "runs a checkout"),
        ([*SLURM, "run.name=a", "target.time=soon", "--"], "target.time: expected MINUTES, HOURS"),
        ([*KUBERNETES, "run.name=a", "--"], "run.remote is required"),
        ([*KUBERNETES, "run.name=a", "--", "run.remote=/mnt/runs"], "run.remote: '/mnt/runs' is"),
        ([*KUBERNETES, "run.name=a", "--", *REMOTE, "data.root=/tmp"], "data.root: '/tmp' is a"),
        ([*KUBERNETES, "run.name=a", "--", *REMOTE, "data.root=crops"], "data.root: 'crops' is a"),
        ([*KUBERNETES, "run.name=a", "resources.gpu=L5", "--", *REMOTE], "did you mean 'L4'?"),
        ([*KUBERNETES, "run.name=a", "resources.gpus=-1", "--", *REMOTE], "at least 0"),
        ([*KUBERNETES, "run.name=a", "target.nmespace=x", "--"], "did you mean 'namespace'?"),
        ([*KUBERNETES, "run.name=a", "target.namespace=A_b", "--"], "target.namespace"),
        ([*KUBERNETES, "run.name=a", "labels={A: b}", "--"], "labels"),
        ([*KUBERNETES, "run.name=a", "image=null", "--", *REMOTE], "image is required"),
        ([*KUBERNETES, "run.name=a", "resources.gpus=1", "--", *REMOTE], "set trainer=gpu"),
        (
            [*KUBERNETES, "run.name=a", "--", *REMOTE, "data.root=/crops"],
            "or a path below a folder of target.volumes",
        ),
        (
            [*KUBERNETES, "run.name=a", "--", *REMOTE, "logger=wandb"],
            "secrets={WANDB_API_KEY: NAME}",
        ),
        ([*KUBERNETES, "run.name=a", "image=A/B@x", "--", *REMOTE], "must be in lower case"),
        ([*KUBERNETES, "run.name=a", "image=a/b@x", "--", *REMOTE], "64 hexadecimal digits"),
        (
            [*KUBERNETES, "run.name=a", "resources.gpus=1", "--", *REMOTE, "trainer=gpu"],
            "add resources.gpu=A100",
        ),
        (
            [*KUBERNETES, "run.name=a", "--", *REMOTE, "model.init_from=gs://bucket/x.ckpt"],
            "model.init_from: 'gs://bucket/x.ckpt' is a URL, and apps/train reads this from a disk",
        ),
        (
            [*KUBERNETES, "run.name=a", "--", *REMOTE, "data.quarantine=leave-out.jsonl"],
            "data.quarantine: 'leave-out.jsonl' is a path of this machine",
        ),
        ([*KUBERNETES, "run.name=a", "secrets=KEY", "--", *REMOTE], "secrets: expected [VARIABLE]"),
        ([*KUBERNETES, "run.name=a", "secrets={KEY: A_b}", "--", *REMOTE], "expected SECRET or"),
        ([*KUBERNETES, "run.name=a", "environment=A", "--", *REMOTE], "expected names and values"),
        ([*KUBERNETES, "run.name=a", "labels={_a: b}", "--", *REMOTE], "after a letter"),
        ([*SLURM, "run.name=a", "target.checkout=/nope", "--"], "'/nope': no such folder"),
        (
            ["target=slurm", "run.name=a", "target.checkout=/nope", "resources.gpus=0", "--"],
            "'/nope': no such folder",
        ),
        (["status"], "expected: apps/launch status NAME"),
        (["stats", "x"], "did you mean 'status'?"),
        (["logs", "../x"], "lowercase letters"),
        (["--dryrun", "--"], "did you mean '--dry-run'?"),
    ],
)
def test_wrong_input_is_one_message_before_anything_is_submitted(
    run_launch: Any, add_command: Any, arguments: list[str], message: str
) -> None:
    for name in ("kubectl", "sbatch", "squeue", "docker"):
        add_command(name, "touch submitted; exit 1")
    code, out, err = run_launch(*arguments)
    assert (code, out) == (2, "")
    assert message in err
    assert "Traceback" not in err
    assert not Path("submitted").exists()


@pytest.mark.parametrize("key", ["data.root", "run.remote"])
def test_a_mounted_folder_is_as_good_as_a_url(run_launch: Any, key: str) -> None:
    mounted = (*KUBERNETES, "target.volumes={crops: /data}", "run.name=a", "--dry-run", "--")
    code, _, err = run_launch(*mounted, *REMOTE, f"{key}=/data/x")
    assert code == 0, err
    code, _, _ = run_launch(*mounted, *REMOTE, f"{key}=/database/x")
    assert code == 2


@pytest.mark.parametrize("target", ["kubernetes", "slurm", "local"])
@pytest.mark.parametrize("action", ["status", "logs", "stop"])
def test_a_missing_client_is_named(
    run_launch: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, target: str, action: str
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    code, _, err = run_launch(action, "first", f"target={target}")
    assert code == 2
    assert "is not on PATH; " in err
    assert "the default" not in err
    code, _, err = run_launch(action, "first")
    assert code == 2
    assert "target=local was asked, the default; name another one with target=TARGET" in err


def git(folder: Path, *arguments: str) -> None:
    identity = ("-c", "user.name=a", "-c", "user.email=a@b")
    subprocess.run(["git", "-C", str(folder), *identity, *arguments], check=True)


@pytest.mark.parametrize("change", ["new.txt", "old.txt"])
def test_a_dirty_checkout_is_refused_unless_allowed(tmp_path: Path, change: str) -> None:
    with pytest.raises(LaunchError, match="no git commit"):
        read_commit(tmp_path, allow_dirty=False)
    git(tmp_path, "init", "--quiet")
    (tmp_path / "old.txt").write_text("1")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "--quiet", "--message=first")
    commit = read_commit(tmp_path, allow_dirty=False)
    assert len(commit) == 40

    (tmp_path / change).write_text("2")
    with pytest.raises(LaunchError, match="uncommitted changes"):
        read_commit(tmp_path, allow_dirty=False)
    assert read_commit(tmp_path, allow_dirty=True) == f"{commit}-dirty"


def test_a_name_that_is_taken_is_refused_and_a_finished_job_is_replaced(
    run_launch: Any, add_command: Any
) -> None:
    launch = (*KUBERNETES, "run.name=a", "--", *REMOTE)
    labels = {"app.kubernetes.io/managed-by": "cls-launch"}
    running: dict[str, Any] = {"metadata": {"labels": labels}, "status": {"ready": 1}}
    finished = {"type": "Failed", "status": "True", "message": "deadline"}

    def answer(job: dict[str, Any]) -> None:
        get = f"cat <<'END'\n{json.dumps(job)}\nEND"
        add_command("kubectl", f'echo "$1" >> calls; if [ "$1" = get ]; then {get}\nfi')

    answer(running)
    code, _, err = run_launch(*launch)
    assert code == 2
    assert "'a' is the name of a running Job; choose another run.name, or stop it" in err
    assert "apps/launch stop a target=kubernetes" in err
    assert Path("calls").read_text().split() == ["get"]
    assert run_launch("status", "a", "target=kubernetes")[1] == "a: Running, 0 failed pods\n"

    answer({**running, "status": {"conditions": [finished]}})
    code, out, _ = run_launch(*launch)
    assert (code, out) == (0, "a: created in namespace default\n")
    assert Path("calls").read_text().split()[-3:] == ["get", "delete", "create"]
    assert run_launch("status", "a", "target=kubernetes")[1] == "a: Failed: deadline\n"

    answer({"metadata": {}})
    code, _, err = run_launch(*launch)
    assert code == 2
    assert "'a' is the name of a Job of something else; choose another run.name\n" in err
    for action in ("status", "stop"):
        code, _, err = run_launch(action, "a", "target=kubernetes")
        assert code == 2
        assert "has no Job 'a' that apps/launch created" in err


@pytest.mark.parametrize(
    ("cause", "code"),
    [
        ('error: context "x" does not exist', 2),
        ("error: You must be logged in to the server (Unauthorized)", 2),
        ('jobs.batch "a" is forbidden: exceeded quota: gpus, requested: 1, used: 8', 1),
        ("Unable to connect to the server: dial tcp: i/o timeout", 1),
    ],
)
def test_the_answer_of_a_service_is_shown_as_it_says_it(
    run_launch: Any, add_command: Any, cause: str, code: int
) -> None:
    log = 'E1127 22:22:47.384736   20984 memcache.go:265] "Unhandled Error"'
    add_command("kubectl", f"echo '{log}' >&2; echo '{cause}' >&2; exit 1")
    returned, _, err = run_launch(*KUBERNETES, "run.name=a", "--", *REMOTE)
    assert returned == code
    assert cause in err
    assert "memcache" not in err


def test_slurm_refuses_a_name_that_is_queued(run_launch: Any, add_command: Any) -> None:
    add_command("squeue", "echo 42 PENDING")
    add_command("sbatch", "touch submitted")
    add_command("scancel", 'echo "$@" > canceled')
    code, _, err = run_launch(*SLURM, "run.name=a", "--")
    assert code == 2
    assert "'a' is the name of job 42 (PENDING)" in err
    assert "apps/launch stop a target=slurm" in err
    assert not Path("submitted").exists()
    assert run_launch("status", "a", "target=slurm")[1] == "a: PENDING\n"
    assert run_launch("stop", "a", "target=slurm")[:2] == (0, "a: canceled\n")
    assert Path("canceled").read_text() == "42\n"
    Path("a.log").write_text("epoch 1\nepoch 2\n")
    assert run_launch("logs", "a", "target=slurm")[1] == "epoch 1\nepoch 2\n"


@pytest.mark.parametrize(
    ("code", "state", "requeued"),
    [
        (0, "RUNNING", False),
        (1, "RUNNING", False),
        (2, "RUNNING", False),
        (143, "RUNNING", True),
        (143, "", False),
    ],
)
def test_the_sbatch_script_requeues_interrupted_jobs_and_not_canceled_ones(
    run_launch: Any, add_command: Any, code: int, state: str, requeued: bool
) -> None:
    _, script, _ = run_launch(*SLURM, "run.name=a", "--dry-run", "--", "seed=3")
    add_command("srun", f'echo "$@" > srun.txt; kill -TERM $PPID; exit {code}')
    add_command("squeue", f"echo {state}")
    add_command("scontrol", 'echo "$@" > scontrol.txt')
    Path("job.sh").write_text(script)
    process = subprocess.run(
        ["bash", "job.sh"],
        env={"PATH": f"{Path.cwd().parent}/bin:/bin:/usr/bin", "SLURM_JOB_ID": "42"},
    )
    assert process.returncode == code
    assert Path("srun.txt").read_text() == "--export=ALL uv run apps/train seed=3 run.name=a\n"
    assert Path("scontrol.txt").exists() is requeued


@pytest.mark.parametrize(
    "setting", ["secrets={WANDB_API_KEY: wandb/key}", "environment.WANDB_MODE=offline"]
)
def test_wandb_runs_with_a_key_and_without_a_network(run_launch: Any, setting: str) -> None:
    launch = (*KUBERNETES, "run.name=a", setting, "--dry-run", "--", *REMOTE, "logger=wandb")
    assert run_launch(*launch)[0] == 0


def test_a_machine_with_more_gpus_than_the_trainer_uses_is_refused(run_launch: Any) -> None:
    launch = (*KUBERNETES[:3], "resources.gpu=L4", "run.name=a", "--dry-run")
    many, trained = "resources.gpus=4", ("--", *REMOTE, "trainer=gpu")
    code, _, err = run_launch(*launch, many, *trained)
    assert code == 2
    assert "set resources.gpus=1 before --, or trainer=ddp after it" in err
    assert run_launch(*launch, many, *trained[:-1], "trainer=ddp")[0] == 0
    assert run_launch(*launch, "resources.gpus=1", *trained)[0] == 0
