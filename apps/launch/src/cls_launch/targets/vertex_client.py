"""The job service of Vertex AI, with its errors in the user's words."""

import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from cls_export.contract.text import escape_control_characters, shorten_long_words
from cls_launch.errors import LaunchError, LaunchFailedError

ACTIVE_STATES = frozenset({"QUEUED", "PENDING", "RUNNING", "CANCELLING", "PAUSED", "UPDATING"})
"""States in which a job is billed, or will be."""

INSTALL = (
    "target=vertex needs google-cloud-aiplatform; run the same command with `uv run --extra vertex "
    "apps/launch`"
)
_LOGIN = (
    "Run `gcloud auth application-default login`, or set GOOGLE_APPLICATION_CREDENTIALS to the "
    "key file of a service account"
)
_SCOPE = "https://www.googleapis.com/auth/cloud-platform"
_SECONDS = 60
"""Time limit of each call."""


@dataclass(frozen=True, slots=True)
class SubmittedJob:
    """A job as the service knows it.

    Attributes:
        resource: `projects/…/locations/…/customJobs/ID`.
        state: State without the prefix JOB_STATE_.
        error: Message of the service, empty without an error.
    """

    resource: str
    state: str
    error: str

    @property
    def number(self) -> str:
        """The ID at the end of the resource name."""
        return self.resource.rpartition("/")[2]


class VertexClient:
    """Calls of the job service in one project and region.

    Args:
        project: ID of the Google Cloud project.
        region: Region of the jobs.
        endpoint: Host of the service, None for that of the region. `http://HOST:PORT` is an
            emulator, which gets no credentials.

    Raises:
        LaunchError: The client library or the credentials are missing.
        LaunchFailedError: No network.
    """

    def __init__(self, project: str, region: str, endpoint: str | None) -> None:
        try:
            from google.cloud import aiplatform_v1
        except ImportError as error:
            raise LaunchError(f"{INSTALL} ({error})") from None
        self._api = aiplatform_v1
        self._project = project
        self._region = region
        self._parent = f"projects/{project}/locations/{region}"
        self._client = self._connect(endpoint)

    def _connect(self, endpoint: str | None) -> Any:
        client_type = self._api.JobServiceClient
        if endpoint is not None and endpoint.startswith("http://"):
            import grpc

            channel = grpc.insecure_channel(endpoint.removeprefix("http://").rstrip("/"))
            transport = client_type.get_transport_class("grpc")(channel=channel)
            return client_type(transport=transport)
        host = endpoint or f"{self._region}-aiplatform.googleapis.com"
        options = {"api_endpoint": host, "quota_project_id": self._project}
        return client_type(credentials=_find_credentials(), client_options=options)

    def create(self, job: str) -> SubmittedJob:
        """Submit a job, given as the JSON of a CustomJob."""
        parsed = self._api.CustomJob.from_json(job)
        with self._translate_errors():
            created = self._client.create_custom_job(
                parent=self._parent, custom_job=parsed, timeout=_SECONDS
            )
        return _summarize(created)

    def find(self, name: str) -> list[SubmittedJob]:
        """Return the jobs of a display name, the newest first."""
        request = {"parent": self._parent, "filter": f"display_name={json.dumps(name)}"}
        with self._translate_errors():
            jobs = list(self._client.list_custom_jobs(request=request, timeout=_SECONDS))
        jobs.sort(key=lambda job: job.create_time, reverse=True)
        return [_summarize(job) for job in jobs if job.display_name == name]

    def cancel(self, job: SubmittedJob) -> None:
        """Stop a job."""
        with self._translate_errors():
            self._client.cancel_custom_job(name=job.resource, timeout=_SECONDS)

    @contextmanager
    def _translate_errors(self) -> Iterator[None]:
        from google.api_core import exceptions

        where = f"project {self._project} in {self._region}"
        try:
            yield
        except exceptions.ResourceExhausted as error:
            raise LaunchFailedError(
                f"Vertex AI refused the job, {where} exceeds a quota: {_clean(error)}. Request a "
                "higher quota, wait for other jobs, or choose another region or GPU"
            ) from None
        except exceptions.Unauthenticated as error:
            raise LaunchError(
                f"Vertex AI did not accept the credentials: {_clean(error)}. {_LOGIN}"
            ) from None
        except exceptions.Forbidden as error:
            raise LaunchError(
                f"Vertex AI denied access to {where}: {_clean(error)}. Check target.project, that "
                "its Vertex AI API is enabled, and that you have the role roles/aiplatform.user "
                "(with target.service_account also roles/iam.serviceAccountUser)"
            ) from None
        except (exceptions.BadRequest, exceptions.NotFound, exceptions.Conflict) as error:
            raise LaunchError(
                f"Vertex AI refused the request to {where}: {_clean(error)}. Check the settings of "
                "target and resources"
            ) from None
        except (exceptions.ServiceUnavailable, exceptions.GatewayTimeout) as error:
            raise LaunchFailedError(
                f"Vertex AI cannot be reached for {where}: {_clean(error)}. Check the network. If "
                "the job was being submitted, ask for its status before you submit it again"
            ) from None
        except exceptions.GoogleAPICallError as error:
            raise LaunchFailedError(f"Vertex AI failed for {where}: {_clean(error)}") from None


def _find_credentials() -> Any:
    """Return credentials that the authentication server has accepted."""
    import google.auth
    from google.auth import exceptions
    from google.auth.transport.requests import Request

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # user credentials without a quota project
            credentials, _ = google.auth.default(scopes=[_SCOPE])
        credentials.refresh(Request())
    except exceptions.TransportError as error:
        raise LaunchFailedError(
            f"Google's authentication server cannot be reached: {_clean(error)}. Check the network"
        ) from None
    except exceptions.GoogleAuthError as error:
        raise LaunchError(
            f"No usable Google Cloud credentials: {_clean(error)}. {_LOGIN}"
        ) from None
    return credentials


def _summarize(job: Any) -> SubmittedJob:
    state = job.state.name.removeprefix("JOB_STATE_")
    return SubmittedJob(job.name, state, _one_line(job.error.message))


def _clean(error: Exception) -> str:
    return _one_line(str(getattr(error, "message", None) or error)).rstrip(".")


def _one_line(text: str) -> str:
    return shorten_long_words(escape_control_characters(" ".join(text.split())))
