"""Sweeps: names, arguments, and that all jobs are checked before the first one is submitted."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

IMAGE = f"127.0.0.1:9/team/cls-train@sha256:{'ab' * 32}"
REMOTE = ("data=jsonl", "data.root=gs://bucket/crops", "run.remote=gs://bucket/runs")
KUBERNETES = ("target=kubernetes", f"image={IMAGE}", "allow_dirty=true", "resources.gpus=0")
SLURM = ("target=slurm", "allow_dirty=true", "resources.gpus=0")


def test_a_sweep_is_one_job_a_run_with_its_own_name(run_launch: Any, add_command: Any) -> None:
    add_command("squeue", "")
    add_command("sbatch", 'cat | grep -E "^srun|job-name"  >> sbatch.txt; echo 7')
    code, out, _ = run_launch(*SLURM, "run.name=s", "-m", "--", "seed=1,2", "optimizer.lr=0.1,0.2")
    assert code == 0
    names = [line.partition(":")[0] for line in out.splitlines()]
    assert names == [f"s-seed-{seed}-lr-0-{lr}" for seed in (1, 2) for lr in (1, 2)]
    submitted = Path("sbatch.txt").read_text()
    assert "apps/train seed=2 optimizer.lr=0.1 run.name=s-seed-2-lr-0-1\n" in submitted


def read_names(script: str) -> list[str]:
    return re.findall(r"--job-name=(\S+)", script)


def test_long_names_of_a_sweep_end_with_a_hash_that_a_longer_sweep_keeps(run_launch: Any) -> None:
    name = "n" * 56
    launch = (*SLURM, f"run.name={name}", "--dry-run", "-m", "--")
    names = read_names(run_launch(*launch, "seed=10,20")[1])
    longer = read_names(run_launch(*launch, "seed=10,30,20")[1])
    assert len(set(names)) == 2
    assert set(names) < set(longer)
    assert all(re.fullmatch(rf"{name}-[0-9a-f]{{6}}", each) for each in longer)


def test_equal_names_of_a_sweep_end_with_a_hash(run_launch: Any) -> None:
    launch = (*SLURM, "run.name=s", "--dry-run", "-m", "--", "run.root=/a/b,/a-b")
    names = read_names(run_launch(*launch)[1])
    assert len(set(names)) == 2
    assert all(re.fullmatch("s-[0-9a-f]{6}", each) for each in names)


def test_a_sweep_changes_no_argument_with_one_value(run_launch: Any) -> None:
    fixed = ("data=jsonl", "data.root=gs://bucket/crops", f"run.root=/{'r' * 240}", "seed=1,2")
    code, out, err = run_launch(*SLURM, "run.name=s", "--dry-run", "-m", "--", *fixed)
    assert code == 0
    assert read_names(out) == ["s-seed-1", "s-seed-2"]
    assert out.count(f"apps/train {' '.join(fixed[:3])} seed=") == 2
    assert "job 2 of 2: s-seed-2\n" in err
    assert "dry run of 2 jobs: s-seed-1, s-seed-2\n" in err


def test_a_sweep_may_name_its_runs(run_launch: Any) -> None:
    launch = ("--dry-run", "-m", "--", "run.name=first,second")
    assert read_names(run_launch(*SLURM, *launch)[1]) == ["first", "second"]


def test_documents_of_a_sweep_are_separate(run_launch: Any) -> None:
    sweep = ("run.name=s", "--dry-run", "-m", "--", *REMOTE, "seed=1,2,3")
    documents = list(yaml.safe_load_all(run_launch(*KUBERNETES, *sweep)[1]))
    assert [each["metadata"]["name"] for each in documents] == [f"s-seed-{n}" for n in (1, 2, 3)]


SWEEP = ("run.name=s", "-m", "--")


@pytest.mark.parametrize(
    ("arguments", "refused"),
    [
        (["data.root=gs://bucket/a,/b"], "s-root-b: data.root: '/b' is a path of this machine"),
        (["run.remote=gs://bucket/runs,null"], "s-remote-null: run.remote is required"),
        (["trainer.accelerator=cpu,gpu"], "s-accelerator-gpu: trainer.accelerator is gpu"),
        (["run.name=ok,Bad"], "run.name: expected at most 63 lowercase"),
        (["seed=1,x"], "seed"),
        (["data.root=/a,/b"], "data.root: '/a' is a path"),
    ],
)
def test_a_sweep_with_a_wrong_run_submits_none(
    run_launch: Any, add_command: Any, arguments: list[str], refused: str
) -> None:
    add_command("kubectl", "touch submitted")
    code, out, err = run_launch(
        *KUBERNETES, *(SWEEP if "run.name" not in arguments[0] else SWEEP[1:]), *REMOTE, *arguments
    )
    assert (code, out) == (2, "")
    assert refused in err
    assert not Path("submitted").exists()


def test_a_sweep_with_names_that_are_taken_submits_none_and_names_them_all(
    run_launch: Any, add_command: Any
) -> None:
    add_command("squeue", 'case "$*" in *name=s-seed-[24]*) echo 42 RUNNING;; esac')
    add_command("sbatch", "touch submitted; echo 7")
    code, _, err = run_launch(*SLURM, *SWEEP, "seed=1,2,3,4,5")
    assert code == 2
    for seed in (2, 4):
        name = f"s-seed-{seed}"
        assert f"run.name: '{name}' is the name of job 42 (RUNNING); choose another" in err
        assert f"apps/launch stop {name} target=slurm\n" in err
    assert "s-seed-3" not in err
    assert "no job was submitted" in err
    assert not Path("submitted").exists()


def test_a_job_that_the_service_refuses_is_named_with_those_that_run(
    run_launch: Any, add_command: Any
) -> None:
    add_command("squeue", "")
    script = 'if grep -q seed=3; then echo "QOSMaxSubmitJobPerUserLimit" >&2; exit 1; fi; echo 7'
    add_command("sbatch", script)
    code, out, err = run_launch(*SLURM, *SWEEP, "seed=1,2,3,4")
    assert code == 1
    assert out == "s-seed-1: submitted as job 7\ns-seed-2: submitted as job 7\n"
    assert "QOSMaxSubmitJobPerUserLimit\n" in err
    assert "submitted: s-seed-1, s-seed-2\nnot submitted: s-seed-3, s-seed-4\n" in err


@pytest.mark.parametrize("flag", ["-m", "--multirun"])
def test_a_sweep_may_be_asked_for_on_both_sides(run_launch: Any, flag: str) -> None:
    before = run_launch(*SLURM, "run.name=s", flag, "--dry-run", "--", "seed=1,2")
    after = run_launch(*SLURM, "run.name=s", "--dry-run", "--", flag, "seed=1,2")
    assert before[:2] == after[:2]
    assert before[0] == 0
