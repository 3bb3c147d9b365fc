"""The job service of Vertex AI on the loopback interface, for its real client.

Requests and answers are parsed by the types of google-cloud-aiplatform, which the tests install
into a folder, because the workspace does not contain it.
"""

import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

SERVICE = "google.cloud.aiplatform.v1.JobService"
LIBRARY = "google-cloud-aiplatform"

Cloud = Callable[[Any, Any], None]
"""Runs a created job: receives the service and the CustomJob, whose state it changes."""


def install_library(folder: Path) -> None:
    """Install the client library; skip the test if it cannot be had."""
    command = ["uv", "pip", "install", "--quiet", "--python", sys.executable]
    if shutil.which("uv") is None:
        command = [sys.executable, "-m", "pip", "install", "--quiet"]
    result = subprocess.run(
        [*command, "--target", str(folder), LIBRARY], capture_output=True, text=True
    )
    if result.returncode != 0:
        pytest.skip(f"{LIBRARY} could not be installed: {result.stderr[-300:]}")


class JobService:
    """Keeps jobs in memory, and answers as the service does.

    Attributes:
        jobs: What was created, oldest first.
        calls: Names of the methods that were called.
        failure: A gRPC status code and a message with which every call fails; None for none.
        url: Where it listens.
    """

    def __init__(self, cloud: Cloud | None = None) -> None:
        from google.cloud import aiplatform_v1

        self.api = aiplatform_v1
        self.jobs: list[Any] = []
        self.calls: list[str] = []
        self.failure: tuple[Any, str] | None = None
        self.failing_call: str | None = None
        self.url = ""
        self._cloud = cloud
        self._threads: list[threading.Thread] = []

    def set_state(self, job: Any, state: str, error: str = "") -> None:
        """Change the state of a job, given without its prefix."""
        job.state = self.api.JobState[f"JOB_STATE_{state}"]
        if error:
            job.error = {"code": 8, "message": error}

    def wait(self) -> None:
        """Wait until all jobs have ended."""
        for thread in self._threads:
            thread.join()

    def create(self, request: Any, context: Any) -> Any:
        """CreateCustomJob."""
        job = request.custom_job
        problem = _find_problem(request.parent, job)
        if problem is not None:
            import grpc

            context.abort(grpc.StatusCode.INVALID_ARGUMENT, problem)
        job.name = f"{request.parent}/customJobs/{len(self.jobs) + 1}"
        job.create_time = {"seconds": 1_700_000_000 + len(self.jobs)}
        self.set_state(job, "PENDING")
        self.jobs.append(job)
        if self._cloud is not None:
            thread = threading.Thread(target=self._cloud, args=(self, job))
            thread.start()
            self._threads.append(thread)
        return job

    def list(self, request: Any, context: Any) -> Any:
        """ListCustomJobs, one job a page."""
        match = re.fullmatch(r'display_name="([^"]+)"', request.filter)
        assert match is not None, request.filter
        found = [job for job in self.jobs if job.display_name == match[1]]
        page = int(request.page_token or 0)
        token = str(page + 1) if page + 1 < len(found) else ""
        return self.api.ListCustomJobsResponse(
            custom_jobs=found[page : page + 1], next_page_token=token
        )

    def cancel(self, request: Any, context: Any) -> Any:
        """CancelCustomJob."""
        from google.protobuf import empty_pb2

        (job,) = [job for job in self.jobs if job.name == request.name]
        self.set_state(job, "CANCELLED")
        return empty_pb2.Empty()

    def handle(self, name: str, method: Any) -> Any:
        """Return a method that fails if `failure` says so."""

        def handler(request: Any, context: Any) -> Any:
            self.calls.append(name)
            if self.failure is not None and self.failing_call in (None, name):
                context.abort(*self.failure)
            return method(request, context)

        return handler


def _find_problem(parent: str, job: Any) -> str | None:
    """Return what the service would refuse in a job."""
    if re.fullmatch(r"projects/[a-z0-9-]+/locations/[a-z0-9-]+", parent) is None:
        return f"Invalid parent: {parent}"
    pools = job.job_spec.worker_pool_specs
    if len(pools) != 1 or pools[0].replica_count != 1:
        return "Expected one worker"
    machine, container = pools[0].machine_spec, pools[0].container_spec
    if bool(machine.accelerator_count) != bool(machine.accelerator_type):
        return "Accelerator type and count must be set together"
    if re.search(r"@sha256:[0-9a-f]{64}$", container.image_uri) is None:
        return f"Image without a digest: {container.image_uri}"
    for text in (*job.labels, *job.labels.values()):
        if re.fullmatch(r"[a-z0-9_-]{0,63}", text) is None:
            return f"Invalid label: {text}"
    return None


@contextmanager
def job_service(cloud: Cloud | None = None) -> Iterator[JobService]:
    """Serve on a free port."""
    import grpc
    from google.protobuf import empty_pb2

    service = JobService(cloud)
    api = service.api
    methods = (
        ("CreateCustomJob", service.create, api.CreateCustomJobRequest, api.CustomJob),
        ("ListCustomJobs", service.list, api.ListCustomJobsRequest, api.ListCustomJobsResponse),
        ("CancelCustomJob", service.cancel, api.CancelCustomJobRequest, empty_pb2.Empty),
    )
    handlers = {}
    for name, method, request, answer in methods:
        is_plain = answer is empty_pb2.Empty
        handlers[name] = grpc.unary_unary_rpc_method_handler(
            service.handle(name, method),
            request_deserializer=request.deserialize,
            response_serializer=answer.SerializeToString if is_plain else answer.serialize,
        )
    server = grpc.server(ThreadPoolExecutor(4))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    service.url = f"http://127.0.0.1:{port}"
    server.start()
    try:
        yield service
    finally:
        service.wait()
        server.stop(None).wait()
