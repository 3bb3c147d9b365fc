"""Set environment variables from Secret Manager, then become the entry point of the image.

Arguments: PROJECT VARIABLE=SECRET... -- COMMAND... The text of this file is part of the jobs of
Vertex AI, which cannot read secrets itself; the values are read by the job.
"""

import base64
import json
import os
import sys
import urllib.request
from typing import Any


def read_json(url: str, headers: dict[str, str]) -> Any:
    """Return the answer of a server, or end the job."""
    request = urllib.request.Request(url, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)
    except OSError as error:
        sys.exit(f"{url} cannot be read: {error}")


def main() -> None:
    """Read the secrets, and run the command."""
    end = sys.argv.index("--")
    project, command = sys.argv[1], sys.argv[end + 1 :]
    metadata = os.environ.get("GCE_METADATA_HOST", "metadata.google.internal")
    account = f"http://{metadata}/computeMetadata/v1/instance/service-accounts/default"
    token = read_json(f"{account}/token", {"Metadata-Flavor": "Google"})["access_token"]
    server = os.environ.get("SECRET_MANAGER_URL", "https://secretmanager.googleapis.com")
    for assignment in sys.argv[2:end]:
        variable, _, secret = assignment.partition("=")
        url = f"{server}/v1/projects/{project}/secrets/{secret}/versions/latest:access"
        answer = read_json(url, {"Authorization": f"Bearer {token}"})
        os.environ[variable] = base64.b64decode(answer["payload"]["data"]).decode()
    os.execvp(command[0], command)


if __name__ == "__main__":
    main()
