"""Values of secrets reach no specification, message, or log."""

from typing import Any

import pytest

from cls_launch.secret_names import looks_secret

PLANTED = "planted-4f9c"
IMAGE = f"image=127.0.0.1:9/team/cls-train@sha256:{'ab' * 32}"
TRAINING = ("--", "data=jsonl", "data.root=gs://bucket/crops", "run.remote=gs://bucket/runs")

TARGETS = {
    "kubernetes": ("target=kubernetes", IMAGE, "secrets={WANDB_API_KEY: wandb/key}"),
    "local": ("target=local", IMAGE, "secrets=[WANDB_API_KEY]"),
    "slurm": ("target=slurm", "secrets=[WANDB_API_KEY]"),
    "skypilot": ("target=skypilot", IMAGE, "secrets=[WANDB_API_KEY]"),
    "vertex": (
        *("target=vertex", "target.project=my-project", IMAGE),
        "secrets={WANDB_API_KEY: wandb-key}",
    ),
}


@pytest.mark.parametrize("name", TARGETS)
def test_a_job_names_a_secret_and_does_not_hold_its_value(
    run_launch: Any, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", PLANTED)
    training = TRAINING if name != "slurm" else ("--",)
    launch = (*TARGETS[name], "allow_dirty=true", "resources.gpus=0", "run.name=ab", "--dry-run")
    code, out, err = run_launch(*launch, *training)
    assert code == 0, err
    assert "WANDB_API_KEY" in out
    assert PLANTED not in out + err


@pytest.mark.parametrize(
    "argument",
    [
        f"environment={{WANDB_API_KEY: {PLANTED}}}",
        f"environment.HF_TOKEN={PLANTED}",
        f"environment.DATABASE=postgres://me:{PLANTED}@host/x",
        f"environment.NOTE=see-{PLANTED}",
        f"labels={{note: {PLANTED}}}",
        f"secrets={{WANDB_API_KEY: {PLANTED}}}",
        f"secrets={{WANDB_API_KEY: {PLANTED}+/=}}",
        f"secrets.WANDB_API_KEY='{PLANTED} '",
        f"secrets=[WANDB_API_KEY,{PLANTED}]",
        f"environment=[{PLANTED}]",
        f"environment={PLANTED}",
    ],
)
def test_a_planted_value_before_the_dashes_is_refused_without_being_shown(
    run_launch: Any, monkeypatch: pytest.MonkeyPatch, argument: str
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", PLANTED)
    launch = (
        "target=slurm",
        "allow_dirty=true",
        "resources.gpus=0",
        "run.name=a",
        "--dry-run",
        argument,
    )
    code, out, err = run_launch(*launch, "--")
    assert code == 2
    assert PLANTED not in out + err


@pytest.mark.parametrize(
    "argument",
    [
        f"logger.wandb.api_key={PLANTED}",
        f"run.remote=s3://me:{PLANTED}@bucket/runs",
        f"data.root=https://me:{PLANTED}@host/crops",
        f"+my.password={PLANTED}",
        f"logger.csv.name={PLANTED}",
    ],
)
def test_a_planted_value_in_the_arguments_of_training_is_refused(
    run_launch: Any, monkeypatch: pytest.MonkeyPatch, argument: str
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", PLANTED)
    launch = (
        "target=kubernetes",
        IMAGE,
        "allow_dirty=true",
        "resources.gpus=0",
        "run.name=a",
        "--dry-run",
    )
    code, out, err = run_launch(*launch, *TRAINING, "logger=csv", argument)
    assert code == 2
    assert PLANTED not in out + err


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("WANDB_API_KEY", True),
        ("HF_TOKEN", True),
        ("logger.wandb.api_key", True),
        ("data.keys", False),
        ("num_tokens", False),
        ("SECRETARY", False),
    ],
)
def test_names_of_secrets_are_recognized(name: str, expected: bool) -> None:
    assert looks_secret(name) is expected
