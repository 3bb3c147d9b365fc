"""References to shared bundles, and what the commands need for each kind."""

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cls_export import RemoteBundleError
from cls_export.cli.main import main
from cls_export.sharing.http_client import is_loopback
from cls_export.sharing.references import Reference, parse_reference

DIGEST = f"sha256:{'0a' * 32}"
COMMIT = "0a" * 20


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("oci://r.io/m:v1", Reference("oci", "r.io", "m", "v1")),
        ("oci://r.io:5000/a/b-c_d.e:V_1.0", Reference("oci", "r.io:5000", "a/b-c_d.e", "V_1.0")),
        (f"oci://[::1]:5000/m@{DIGEST}", Reference("oci", "[::1]:5000", "m", digest=DIGEST)),
        ("gs://bucket/a/B c:v1", Reference("gs", "bucket", "a/B c", "v1")),
        (f"s3://bucket/a@{DIGEST}", Reference("s3", "bucket", "a", digest=DIGEST)),
        ("gs://my_bucket/a:v1", Reference("gs", "my_bucket", "a", "v1")),
        ("s3://bucket/Größe:v1", Reference("s3", "bucket", "Größe", "v1")),
        ("file:///home/ü/.cache/a (1):v1", Reference("file", "", "home/ü/.cache/a (1)", "v1")),
        ("file:///data/models:v1", Reference("file", "", "data/models", "v1")),
        ("hf://owner/Model", Reference("hf", "owner", "Model", "main")),
        ("hf://owner/Model@v1", Reference("hf", "owner", "Model", "v1")),
        (f"hf://owner/Model@{COMMIT}", Reference("hf", "owner", "Model", digest=COMMIT)),
    ],
)
def test_reference_is_read(text: str, expected: Reference) -> None:
    assert parse_reference(text) == expected
    assert parse_reference(str(expected)) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "registry/m:v1",
        "https://r.io/m:v1",
        "oci://",
        "oci:///m:v1",
        "oci://r.io/",
        "oci://r.io/m:",
        "oci://r.io/m@",
        "oci://r.io/m@sha256:0a",
        f"oci://r.io/m@{DIGEST.upper()}",
        f"oci://r.io/m@sha512:{'0a' * 64}",
        f"oci://r.io/m:v1@{DIGEST}",
        "oci://r.io/../m:v1",
        "oci://r.io/m/..:v1",
        "oci://r.io//m:v1",
        "oci://r.io/M:v1",
        "oci://r.io/m?x=1:v1",
        "oci://r.io/m\n:v1",
        "oci://r.io/m:v1\n",
        "oci://r.io#/m:v1",
        "oci://r.io:port/m:v1",
        "oci://r.io:65536/m:v1",
        "oci://r.io:/m:v1",
        "oci://r..io/m:v1",
        "oci://-r.io/m:v1",
        f"oci://{'a' * 64}.io/m:v1",
        f"oci://{'a.' * 127}io/m:v1",
        "oci://r_1.io/m:v1",
        "oci://ü.io/m:v1",
        "oci://[fe80::1%eth0]/m:v1",
        "gs://bucket/../other:v1",
        "gs://bucket/a/./b:v1",
        "gs://bucket/*:v1",
        "file://host/data:v1",
        "file:///data/../etc:v1",
        "hf://owner",
        "hf://owner/model/file",
        "hf://owner/model@../x",
        f"oci://r.io/{'a' * 2_000}:v1",
    ],
)
def test_other_text_is_refused(text: str) -> None:
    with pytest.raises(RemoteBundleError):
        parse_reference(text)


@pytest.mark.parametrize("scheme", ["oci", "gs", "s3", "hf"])
def test_password_in_a_reference_is_refused_without_showing_it(
    scheme: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = f"{scheme}://user:s3cret@registry.example.com/models:v1"
    assert main(["pull", source, str(tmp_path / "pulled")]) == 2
    error = capsys.readouterr().err
    assert "must not contain a user name or password" in error
    assert "s3cret" not in error


@given(st.text(max_size=40), st.sampled_from(["oci", "gs", "s3", "file", "hf", "http"]))
def test_any_text_is_a_reference_that_reads_back_or_refused(text: str, scheme: str) -> None:
    try:
        reference = parse_reference(f"{scheme}://{text}")
    except RemoteBundleError:
        return
    assert parse_reference(str(reference)) == reference
    assert ".." not in reference.path.split("/")


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("localhost", True),
        ("localhost:5000", True),
        ("127.0.0.1:5000", True),
        ("127.8.9.1", True),
        ("[::1]:5000", True),
        ("[::1]", True),
        ("::1", True),
        ("LOCALHOST:5000", True),
        ("::1:5", False),
        ("[::5]:1", False),
        ("localhost.example.com", False),
        ("127.0.0.1.example.com", False),
        ("10.0.0.1:5000", False),
        ("registry.example.com", False),
    ],
)
def test_only_this_machine_is_contacted_without_tls(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected


RUN_WITHOUT_PACKAGES = """
import sys
for name in ("httpx2", "gcsfs", "s3fs", "huggingface_hub"):
    sys.modules[name] = None
from cls_export.cli.main import main
for source in sys.argv[3:]:
    print(main(["pull", source, sys.argv[2]]), main(["push", sys.argv[1], source]))
"""


def test_missing_extra_is_one_message_with_the_install_line(tmp_path: Path, current: Path) -> None:
    extras = {
        "oci://r.io/m:v1": "registry",
        "gs://bucket/m:v1": "gcs",
        "s3://bucket/m:v1": "s3",
        "hf://owner/m": "hf",
    }
    arguments = [str(current), str(tmp_path / "pulled"), *extras]
    result = subprocess.run(
        [sys.executable, "-c", RUN_WITHOUT_PACKAGES, *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.stdout == "2 2\n" * len(extras)
    lines = result.stderr.splitlines()
    assert len(lines) == 2 * len(extras)
    for index, (source, extra) in enumerate(extras.items()):
        for line in lines[2 * index : 2 * index + 2]:
            assert f"is not installed. For {source.partition(':')[0]}:// references" in line
            assert f'pip install "cls-export[{extra}]"' in line


def test_other_commands_load_no_client() -> None:
    code = (
        "import sys, cls_export.cli.main, cls_export.cli.inference\n"
        "cls_export.Classifier, cls_export.verify_bundle\nprint(*sys.modules)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    loaded = {name.partition(".")[0] for name in result.stdout.split()}
    assert loaded.isdisjoint({"httpx2", "fsspec", "huggingface_hub", "gcsfs", "s3fs"})
    assert "cls_export.sharing.registry" not in result.stdout
