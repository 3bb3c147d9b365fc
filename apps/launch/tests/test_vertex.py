"""Vertex AI: what is rendered and refused without the service."""

import base64
import http.server
import json
import re
import subprocess
import sys
import threading
from dataclasses import replace
from typing import Any

import pytest

from cls_launch.errors import LaunchError
from cls_launch.targets.target import Job, Resources
from cls_launch.targets.vertex import VertexSettings, VertexTarget
from cls_launch.targets.vertex_machines import ACCELERATORS, MACHINES_WITH_GPUS, choose_machine

IMAGE = f"us-docker.pkg.dev/p/cls/train@sha256:{'0' * 64}"
JOB = Job(
    name="spot-run",
    image=IMAGE,
    arguments=("experiment=jersey_numbers", "run.remote=gs://bucket/runs"),
    resources=Resources(gpu="L4"),
    commit="0123abc",
    environment={"HF_HUB_OFFLINE": "1"},
    secrets={},
    labels={"app": "cls-train"},
)


def _target(**settings: Any) -> VertexTarget:
    return VertexTarget(VertexSettings(**{"project": "my-project", **settings}))


def _check(job: Job = JOB, **settings: Any) -> str:
    with pytest.raises(LaunchError) as caught:
        _target(**settings).check(job)
    return str(caught.value)


def _render(job: Job = JOB, **settings: Any) -> Any:
    target = _target(**settings)
    target.check(job)
    return json.loads(target.render(job))["jobSpec"]


def test_a_job_has_the_image_arguments_machine_and_labels() -> None:
    target = _target(service_account="trainer@my-project.iam.gserviceaccount.com")
    rendered = json.loads(target.render(JOB))
    assert rendered["displayName"] == "spot-run"
    assert rendered["labels"] == {"app": "cls-train", "commit": "0123abc"}
    spec = rendered["jobSpec"]
    assert spec["serviceAccount"] == "trainer@my-project.iam.gserviceaccount.com"
    (pool,) = spec["workerPoolSpecs"]
    assert pool["machineSpec"] == {
        "machineType": "g2-standard-4",
        "acceleratorType": "NVIDIA_L4",
        "acceleratorCount": 1,
    }
    assert pool["containerSpec"] == {
        "imageUri": IMAGE,
        "args": ["experiment=jersey_numbers", "run.remote=gs://bucket/runs"],
        "env": [{"name": "HF_HUB_OFFLINE", "value": "1"}],
    }


@pytest.mark.parametrize(
    ("strategy", "expected"),
    [("spot", "SPOT"), ("on_demand", "STANDARD"), ("flex_start", "FLEX_START")],
)
def test_a_job_restarts_with_every_strategy(strategy: str, expected: str) -> None:
    scheduling = _render(strategy=strategy, timeout_hours=1.5)["scheduling"]
    assert scheduling["strategy"] == expected
    assert scheduling["timeout"] == "5400s"
    assert scheduling["restartJobOnWorkerRestart"]
    assert not scheduling["disableRetries"]
    assert ("maxWaitDuration" in scheduling) == (strategy == "flex_start")


def test_without_restart_the_service_does_not_retry() -> None:
    scheduling = _render(restart=False)["scheduling"]
    assert scheduling["disableRetries"]
    assert not scheduling["restartJobOnWorkerRestart"]


@pytest.mark.parametrize(
    ("gpu", "gpus", "machine"),
    [
        ("L4", 1, "g2-standard-4"),
        ("L4", 4, "g2-standard-48"),
        ("A100", 1, "a2-highgpu-1g"),
        ("A100", 16, "a2-megagpu-16g"),
        ("A100-80GB", 2, "a2-ultragpu-2g"),
        ("H100", 1, "a3-highgpu-1g"),
        ("H100", 8, "a3-highgpu-8g"),
        ("T4", 2, "n1-standard-8"),
        (None, 0, "e2-standard-4"),
    ],
)
def test_the_smallest_machine_with_the_resources_is_chosen(
    gpu: str | None, gpus: int, machine: str
) -> None:
    wanted = Resources(gpu=gpu, gpus=gpus)
    if gpu == "T4":
        wanted = Resources(gpu=gpu, gpus=gpus, cpus=8)
    assert choose_machine(wanted, None, on_demand=False).name == machine


def test_more_cpus_or_memory_choose_a_larger_machine() -> None:
    wanted = Resources(gpu="L4", cpus=8, memory_gb=40)
    assert choose_machine(wanted, None, on_demand=True).name == "g2-standard-12"


@pytest.mark.parametrize("machine", [machine.name for machine in MACHINES_WITH_GPUS])
def test_a_named_machine_needs_exactly_its_own_gpus(machine: str) -> None:
    (expected,) = [each for each in MACHINES_WITH_GPUS if each.name == machine]
    right = Resources(gpu=expected.gpu, gpus=expected.gpus)
    assert choose_machine(right, machine, on_demand=False).name == machine
    for wrong in (
        Resources(gpus=0),
        Resources(gpu="T4", gpus=expected.gpus),
        Resources(gpu=expected.gpu, gpus=3),
    ):
        with pytest.raises(LaunchError, match=f"{machine} has {expected.gpus} x {expected.gpu}"):
            choose_machine(wrong, machine, on_demand=False)


@pytest.mark.parametrize(
    ("resources", "settings", "expected"),
    [
        ({"gpu": None}, {}, "add resources.gpu=L4, or resources.gpus=0"),
        ({"gpu": "H1000"}, {}, "did you mean 'H100'?"),
        ({"gpu": "NVIDIA_NEW_1"}, {}, "target.machine=TYPE"),
        ({"gpu": "new"}, {"machine": "a9-highgpu-1g"}, "resources.gpu=NVIDIA_"),
        ({"gpu": "NVIDIA_NEW_1"}, {"machine": "a9"}, "target.machine=a9 is no machine type"),
        ({"gpu": "L4", "gpus": 3}, {}, "machines with L4 have 1 or 2 or 4 or 8 GPUs"),
        ({"gpu": "L4", "cpus": 500}, {}, "lower resources.cpus"),
        ({"gpu": "L4"}, {"machine": "n1-standard-8"}, "n1-standard-8 has no L4"),
        ({"gpu": "T4"}, {"machine": "e2-standard-8"}, "only n1 machines have"),
        ({"gpu": "T4", "gpus": 8}, {"machine": "n1-standard-8"}, "can have 1 or 2 or 4 x T4"),
        ({"gpu": "L4"}, {"machine": "g2standard4"}, "did you mean 'g2-standard-4'?"),
        ({"gpu": "H100"}, {"strategy": "on_demand"}, "target.strategy=spot"),
        ({"gpu": "L4"}, {"region": "us-centrall"}, "did you mean 'us-central1'?"),
        ({"gpu": "L4"}, {"region": "global"}, "no region of Vertex AI"),
        ({"gpu": "L4"}, {"project": None}, "add target.project=ID"),
        ({"gpu": "L4"}, {"project": "My Project"}, "target.project=My Project is no project ID"),
        ({"gpu": "L4"}, {"service_account": "me@example.com"}, "is no service account"),
    ],
)
def test_what_does_not_exist_is_refused_before_anything_is_submitted(
    resources: dict[str, Any], settings: dict[str, Any], expected: str
) -> None:
    assert expected in _check(replace(JOB, resources=Resources(**resources)), **settings)


def test_a_machine_type_that_is_newer_than_the_table_is_left_to_the_service() -> None:
    for gpu, name in (("B200", "NVIDIA_B200"), ("NVIDIA_NEW_1", "NVIDIA_NEW_1")):
        job = replace(JOB, resources=Resources(gpu=gpu, gpus=4))
        (pool,) = _render(job, machine="a9-highgpu-4g")["workerPoolSpecs"]
        assert pool["machineSpec"] == {
            "machineType": "a9-highgpu-4g",
            "acceleratorType": name,
            "acceleratorCount": 4,
        }
        (note,) = _target(machine="a9-highgpu-4g").list_notes(job)
        assert f"a9-highgpu-4g with 4 x {gpu} is not in the table" in note


@pytest.mark.parametrize(
    ("machine", "resources"),
    [
        ("g2-standard-8", {"gpu": "L4"}),
        ("n1-standard-8", {"gpu": "T4"}),
        ("e2-standard-4", {"gpus": 0}),
        (None, {"gpu": "H200", "gpus": 8}),
    ],
)
def test_machines_of_the_table_need_no_note(machine: str | None, resources: dict[str, Any]) -> None:
    job = replace(JOB, resources=Resources(**resources))
    assert _target(machine=machine).list_notes(job) == []


def _expand(text: str) -> str:
    """Replace `$(NAME)` by a value, and `$$` by `$`, as the service does."""
    return re.sub(r"\$\$|\$\(\w*\)", lambda match: "$" if match[0] == "$$" else "VALUE", text)


def test_only_names_of_secrets_are_rendered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "planted-value-1")
    monkeypatch.setenv("wandb-key", "planted-value-2")
    job = replace(JOB, secrets={"WANDB_API_KEY": "wandb-key"})
    container = _render(job)["workerPoolSpecs"][0]["containerSpec"]
    assert container["command"][3:] == [
        *("my-project", "WANDB_API_KEY=wandb-key", "--"),
        *("python", "/opt/cls/apps/train"),
    ]
    assert "planted" not in _target().render(job)


def test_the_job_reads_its_secrets_and_becomes_the_entry_point() -> None:
    show = "import os, sys; print(os.environ['WANDB_API_KEY'], sys.argv[1:])"
    job = replace(JOB, secrets={"WANDB_API_KEY": "wandb-key"}, arguments=("$(X)", "b c"))
    result = _run_with_secrets(job, (sys.executable, "-c", show))
    assert result.stdout == "planted-value ['$(X)', 'b c']\n", result.stderr


def test_a_secret_that_cannot_be_read_ends_the_job_with_its_name() -> None:
    job = replace(JOB, secrets={"WANDB_API_KEY": "no-such-key"})
    result = _run_with_secrets(job, (sys.executable, "-c", "print('started')"))
    assert result.returncode != 0
    assert result.stdout == ""
    assert "my-project/secrets/no-such-key/versions/latest:access cannot be read" in result.stderr
    assert "Traceback" not in result.stderr


def _run_with_secrets(job: Job, entrypoint: tuple[str, ...]) -> subprocess.CompletedProcess[str]:
    """Run the command of a job beside servers of tokens and secrets."""
    container = _render(job, entrypoint=entrypoint)["workerPoolSpecs"][0]["containerSpec"]
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _SecretServer)
    threading.Thread(target=server.serve_forever, args=(0.01,)).start()
    address = f"127.0.0.1:{server.server_port}"
    command = [_expand(word) for word in (*container["command"][1:], *container["args"])]
    try:
        return subprocess.run(
            [sys.executable, *command],
            env={"GCE_METADATA_HOST": address, "SECRET_MANAGER_URL": f"http://{address}"},
            capture_output=True,
            text=True,
        )
    finally:
        server.shutdown()
        server.server_close()


class _SecretServer(http.server.BaseHTTPRequestHandler):
    """The metadata server and Secret Manager."""

    def do_GET(self) -> None:
        payload = {"data": base64.b64encode(b"planted-value").decode()}
        secret = "/v1/projects/my-project/secrets/wandb-key/versions/latest:access"
        token = "/computeMetadata/v1/instance/service-accounts/default/token"
        answers: dict[str, Any] = {token: {"access_token": "t"}, secret: {"payload": payload}}
        is_allowed = self.headers["Metadata-Flavor"] or self.headers["Authorization"] == "Bearer t"
        found = answers.get(self.path) if is_allowed else None
        body = json.dumps(found).encode()
        self.send_response(200 if found else 403)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        pass


def test_a_value_in_place_of_the_name_of_a_secret_is_refused() -> None:
    assert "no name in Secret Manager" in _check(replace(JOB, secrets={"KEY": "x/y z"}))


def test_all_gpus_have_a_machine() -> None:
    for gpu in ACCELERATORS:
        smallest = min(count for count in range(1, 17) if _exists(gpu, count))
        assert choose_machine(Resources(gpu=gpu, gpus=smallest), None, on_demand=False)


def _exists(gpu: str, count: int) -> bool:
    try:
        choose_machine(Resources(gpu=gpu, gpus=count), None, on_demand=False)
    except LaunchError:
        return False
    return True


def test_a_missing_client_library_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "google.cloud", None)
    for call in (_target().status, _target().stop):
        with pytest.raises(LaunchError, match="uv run --extra vertex"):
            call("spot-run")
    with pytest.raises(LaunchError, match="uv run --extra vertex"):
        _target().submit(JOB)
