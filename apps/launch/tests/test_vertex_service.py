"""Vertex AI: the real client and a service on the loopback interface.

google-cloud-aiplatform is installed into a temporary folder, because the workspace has none.
"""

import ast
import http.server
import json
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from vertex_service import JobService, install_library, job_service

from cls_launch.errors import LaunchError, LaunchFailedError
from cls_launch.targets.target import Job, Resources, TakenName
from cls_launch.targets.vertex import VertexSettings, VertexTarget
from cls_launch.targets.vertex_machines import ACCELERATORS, REGIONS

pytestmark = pytest.mark.slow

JOB = Job(
    name="spot-run",
    image=f"us-docker.pkg.dev/p/cls/train@sha256:{'0' * 64}",
    arguments=("experiment=jersey_numbers", "run.remote=gs://bucket/runs"),
    resources=Resources(gpu="L4", gpus=2),
    commit="0123abc-dirty",
    environment={"HF_HUB_OFFLINE": "1"},
    secrets={"WANDB_API_KEY": "wandb-key"},
    labels={"app": "cls-train"},
)


@pytest.fixture(scope="module", autouse=True)
def library(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("vertex")
    install_library(folder)
    sys.path.append(str(folder))
    yield folder
    sys.path.remove(str(folder))


@pytest.fixture
def service(library: Path) -> Iterator[JobService]:
    with job_service() as running:
        yield running


def _target(service: JobService | None = None, **settings: Any) -> VertexTarget:
    endpoint = service.url if service is not None else None
    return VertexTarget(
        VertexSettings(**{"project": "my-project", "endpoint": endpoint} | settings)
    )


@pytest.mark.parametrize("strategy", ["spot", "on_demand", "flex_start"])
def test_the_library_reads_the_rendered_job_unchanged(service: JobService, strategy: str) -> None:
    target = _target(service, strategy=strategy, network="projects/1/global/networks/n")
    message = target.submit(JOB)
    (job,) = service.jobs
    assert job.name == "projects/my-project/locations/us-central1/customJobs/1"
    assert job.name in message
    assert "us-central1/training/1?project=my-project" in message

    rendered = json.loads(target.render(JOB))
    sent = json.loads(type(job).to_json(job, use_integers_for_enums=False))
    assert sent["jobSpec"].items() >= {"network": "projects/1/global/networks/n"}.items()
    assert sent["displayName"] == JOB.name
    assert sent["labels"] == rendered["labels"] == {"app": "cls-train", "commit": JOB.commit}
    (pool,) = sent["jobSpec"]["workerPoolSpecs"]
    (expected,) = rendered["jobSpec"]["workerPoolSpecs"]
    assert pool["machineSpec"].items() >= expected["machineSpec"].items()
    assert pool["containerSpec"] == expected["containerSpec"]
    assert pool["diskSpec"].items() >= expected["diskSpec"].items()
    scheduling = rendered["jobSpec"]["scheduling"]
    assert sent["jobSpec"]["scheduling"].items() >= scheduling.items()


def test_regions_and_accelerators_are_those_of_the_library(library: Path) -> None:
    source = (library / "google/cloud/aiplatform/constants/base.py").read_text()
    tree = ast.parse(source)
    (regions,) = [
        ast.literal_eval(node.value.args[0])
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "SUPPORTED_REGIONS"
    ]
    assert regions - {"global"} == REGIONS

    from google.cloud import aiplatform_v1

    assert set(ACCELERATORS.values()) <= set(aiplatform_v1.AcceleratorType.__members__)


@pytest.mark.parametrize("state", ["QUEUED", "PENDING", "RUNNING", "CANCELLING"])
def test_the_name_of_an_active_job_is_taken(service: JobService, state: str) -> None:
    target = _target(service)
    target.submit(JOB)
    service.set_state(service.jobs[0], state)
    taken = target.find_taken([JOB.name, "spot-run-2"])
    job = f"projects/my-project/locations/us-central1/customJobs/1 ({state})"
    assert taken == {JOB.name: TakenName(job)}


@pytest.mark.parametrize("state", ["SUCCEEDED", "FAILED", "CANCELLED", "EXPIRED"])
def test_the_name_of_an_ended_job_can_be_used_again(service: JobService, state: str) -> None:
    target = _target(service)
    target.submit(JOB)
    service.set_state(service.jobs[0], state)
    assert target.find_taken([JOB.name]) == {}
    target.submit(JOB)
    assert len(service.jobs) == 2
    assert target.status(JOB.name) == "PENDING", "the newest job counts"


def test_states_follow_a_preempted_job_to_its_end(service: JobService) -> None:
    target = _target(service)
    target.submit(JOB)
    (job,) = service.jobs
    seen = [target.status(JOB.name)]
    for state in ("RUNNING", "PENDING", "RUNNING", "SUCCEEDED"):
        service.set_state(job, state)
        seen.append(target.status(JOB.name))
    assert seen == ["PENDING", "RUNNING", "PENDING", "RUNNING", "SUCCEEDED"]


def test_the_status_of_a_failed_job_has_the_message_of_the_service(service: JobService) -> None:
    target = _target(service)
    target.submit(JOB)
    service.set_state(service.jobs[0], "FAILED", "The replica exited with\n\x1b[31mcode 1.")
    assert target.status(JOB.name) == r"FAILED: The replica exited with \x1b[31mcode 1."


def test_an_active_job_is_stopped_and_an_ended_one_is_not(service: JobService) -> None:
    target = _target(service)
    target.submit(JOB)
    assert "SIGTERM" in target.stop(JOB.name)
    assert target.status(JOB.name) == "CANCELLED"
    with pytest.raises(LaunchError, match="is not running on Vertex AI, it is CANCELLED"):
        target.stop(JOB.name)
    assert service.calls.count("CancelCustomJob") == 1


@pytest.mark.parametrize("action", ["status", "stop"])
def test_an_unknown_job_is_refused(service: JobService, action: str) -> None:
    with pytest.raises(LaunchError, match="no job 'no-such-run'"):
        getattr(_target(service), action)("no-such-run")


def test_logs_are_read_by_gcloud(
    service: JobService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = _target(service)
    target.submit(JOB)
    monkeypatch.setenv("PATH", str(tmp_path))
    command = "gcloud ai custom-jobs stream-logs 1 --region=us-central1 --project=my-project"
    with pytest.raises(LaunchError, match=f"install the Google Cloud CLI and run `{command}`"):
        list(target.logs(JOB.name))

    gcloud = tmp_path / "gcloud"
    gcloud.write_text(f'#!{sys.executable}\nimport sys\nprint("gcloud", *sys.argv[1:])\n')
    gcloud.chmod(0o755)
    assert list(target.logs(JOB.name)) == [command]
    gcloud.write_text("#!/bin/sh\nexit 3\n")
    with pytest.raises(LaunchFailedError, match="exit code 3"):
        list(target.logs(JOB.name))


@pytest.mark.parametrize("call", ["ListCustomJobs", "CreateCustomJob"])
@pytest.mark.parametrize(
    ("code", "text", "error", "expected"),
    [
        (
            "RESOURCE_EXHAUSTED",
            "The following quota metrics exceed quota limits: custom_model_training_nvidia_l4_gpus",
            LaunchFailedError,
            "exceed quota limits: custom_model_training_nvidia_l4_gpus. Request a higher quota",
        ),
        (
            "PERMISSION_DENIED",
            "Permission 'aiplatform.customJobs.create' denied",
            LaunchError,
            "denied access to project my-project in us-central1: Permission",
        ),
        ("UNAUTHENTICATED", "Invalid credentials", LaunchError, "gcloud auth application-default"),
        ("INVALID_ARGUMENT", "L4 is not supported in me-west1", LaunchError, "in me-west1. Check"),
        ("NOT_FOUND", "Project not found", LaunchError, "Project not found"),
        ("UNAVAILABLE", "The service is down", LaunchFailedError, "Check the network"),
        ("DEADLINE_EXCEEDED", "too slow", LaunchFailedError, "ask for its status before"),
        ("INTERNAL", "Internal error", LaunchFailedError, "Vertex AI failed"),
    ],
)
def test_errors_of_the_service_are_one_message_and_nothing_is_created(
    service: JobService, call: str, code: str, text: str, error: type[Exception], expected: str
) -> None:
    import grpc

    service.failure = (grpc.StatusCode[code], text)
    service.failing_call = call
    action = _target(service).submit if call == "CreateCustomJob" else _target(service).status
    with pytest.raises(error) as caught:
        action(JOB if call == "CreateCustomJob" else JOB.name)
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not service.jobs


def test_a_service_that_cannot_be_reached_is_one_message() -> None:
    with pytest.raises(LaunchFailedError, match="cannot be reached for project my-project"):
        _target(endpoint="http://127.0.0.1:9").submit(JOB)


@pytest.mark.parametrize("content", [None, "no JSON", '{"type": "unknown"}'])
def test_missing_or_broken_credentials_are_one_message(
    content: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _forget_credentials(monkeypatch, tmp_path)
    if content is not None:
        (tmp_path / "key.json").write_text(content)
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "key.json"))
    with pytest.raises(LaunchError, match="Run `gcloud auth application-default login`"):
        _target().submit(JOB)


def test_refused_credentials_and_no_network_are_told_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _forget_credentials(monkeypatch, tmp_path)
    private_key = _create_private_key()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _RefusingServer)
    threading.Thread(target=server.serve_forever, args=(0.01,)).start()
    try:
        for port, error in ((server.server_port, LaunchError), (9, LaunchFailedError)):
            account = {
                "type": "service_account",
                "client_email": "trainer@my-project.iam.gserviceaccount.com",
                "private_key": private_key,
                "token_uri": f"http://127.0.0.1:{port}/token",
            }
            (tmp_path / "key.json").write_text(json.dumps(account))
            monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "key.json"))
            with pytest.raises(error) as caught:
                _target().submit(JOB)
            expected = "invalid_grant" if error is LaunchError else "Check the network"
            assert expected in str(caught.value)
    finally:
        server.shutdown()
        server.server_close()


def _forget_credentials(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    for name in list(os.environ):
        if name.startswith(("GOOGLE_", "CLOUDSDK_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("APPDATA", str(home))
    monkeypatch.setenv("NO_GCE_CHECK", "true")


def _create_private_key() -> str:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    text = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return text.decode()


class _RefusingServer(http.server.BaseHTTPRequestHandler):
    """An authentication server that knows nobody."""

    def do_POST(self) -> None:
        body = b'{"error": "invalid_grant", "error_description": "Token has been revoked"}'
        self.send_response(400)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        pass
