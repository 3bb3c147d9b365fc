"""Bundles travel to a registry or a shared folder and back, by digest."""

import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from registry_server import Handler, RegistryServer

from cls_export import (
    BundleError,
    RemoteBundleError,
    TransferError,
    VerificationError,
    pull_bundle,
    push_bundle,
    verify_bundle,
)
from cls_export.bundle.model_card import write_model_card
from cls_export.cli.main import main
from cls_export.contract.files import draft_path
from cls_export.contract.labels_mapping import LabelsMapping
from cls_export.sharing import store as stores
from cls_export.sharing.manifest import Blob
from cls_export.sharing.references import parse_reference
from cls_export.sharing.store import FolderStore


def read_files(folder: Path) -> dict[str, bytes]:
    files = {}
    for path in folder.rglob("*"):
        if path.is_file():
            files[path.relative_to(folder).as_posix()] = path.read_bytes()
    return files


@pytest.fixture(params=["oci", "file"])
def place(request: pytest.FixtureRequest, registry: RegistryServer, tmp_path: Path) -> str:
    """A reference without tag."""
    if request.param == "oci":
        return registry.name("")
    return f"file://{tmp_path / 'store/models/jersey'}"


def test_bundle_comes_back_with_the_same_files_and_the_printed_digest(
    place: str, current_copy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = LabelsMapping.load(current_copy / "labels_mapping.json")
    write_model_card(current_copy, labels)
    assert main(["push", str(current_copy), f"{place}:v1"]) == 0
    pushed = capsys.readouterr()
    digest = pushed.out.strip()
    assert f"cls-export pull {place}@{digest} DIR" in pushed.err

    for version, note in ((f"@{digest}", ""), (":v1", f"this bundle is {place}@{digest}")):
        target = tmp_path / "pulled" / version[:2]
        assert main(["pull", f"{place}{version}", str(target)]) == 0
        pulled = capsys.readouterr()
        assert pulled.out.strip() == digest
        assert note in pulled.err
        card = target / "README.md"
        assert f"passes its self-test; its figures and limits are in {card}\n" in pulled.err
        assert read_files(target) == read_files(current_copy)
        assert verify_bundle(target).passed


def test_digest_depends_on_the_content_only(
    current: Path, registry: RegistryServer, tmp_path: Path
) -> None:
    first = push_bundle(current, registry.name(":v1"))
    uploads = registry.count("POST")
    assert push_bundle(current, registry.name(":v2")) == first
    assert push_bundle(current, f"file://{tmp_path}/store:v1") == first
    assert registry.count("POST") == uploads
    manifest = registry.manifests[first]
    assert first == f"sha256:{hashlib.sha256(manifest).hexdigest()}"


@pytest.mark.parametrize("version", [1, 2, 3])
def test_bundles_of_every_schema_version_can_be_shared(
    version: int, registry: RegistryServer, tmp_path: Path
) -> None:
    bundle = Path(__file__).parents[1] / f"golden/bundle_v{version}"
    digest = push_bundle(bundle, registry.name(":v1"))
    assert pull_bundle(registry.name(f"@{digest}"), tmp_path / "pulled") == digest
    assert read_files(tmp_path / "pulled") == read_files(bundle)


def test_moved_tag_leaves_the_old_bundle_at_its_digest(
    place: str, current: Path, exported: Path, tmp_path: Path
) -> None:
    old = push_bundle(exported, f"{place}:v1")
    new = push_bundle(current, f"{place}:v1")
    assert pull_bundle(f"{place}:v1", tmp_path / "pulled") == new != old
    assert pull_bundle(f"{place}@{old}", tmp_path / "pulled") == old
    assert read_files(tmp_path / "pulled") == read_files(exported)


def test_files_that_do_not_belong_to_a_bundle_are_not_pushed(
    current_copy: Path, registry: RegistryServer
) -> None:
    (current_copy / "secret.txt").write_text("a password")
    (current_copy / "golden/.DS_Store").write_text("a desktop")
    digest = push_bundle(current_copy, registry.name(":v1"))
    assert b"secret" not in registry.manifests[digest]
    assert b"DS_Store" not in registry.manifests[digest]


def test_link_in_place_of_a_card_that_no_hash_covers_is_not_followed(
    current_copy: Path, registry: RegistryServer, tmp_path: Path
) -> None:
    (tmp_path / "private").write_text("a password")
    (current_copy / "README.md").symlink_to(tmp_path / "private")
    with pytest.raises(BundleError, match=r"README\.md is a link"):
        push_bundle(current_copy, registry.name(":v1"))
    assert registry.blobs == {}


@pytest.mark.parametrize("name", ["model.onnx", "golden/golden.json", "golden/000.png"])
def test_damaged_bundle_is_not_pushed(
    name: str, current_copy: Path, registry: RegistryServer
) -> None:
    file = current_copy / name
    file.write_bytes(file.read_bytes()[:-1] + b"?")
    with pytest.raises((BundleError, VerificationError), match=name.rpartition("/")[2]):
        push_bundle(current_copy, registry.name(":v1"))
    assert registry.count("POST") == registry.count("PUT") == 0


def give_other_logits(bundle: Path, restate_hashes: Callable[[Path], None]) -> None:
    """Change what the golden images should give, with hashes that agree."""
    path = bundle / "golden/golden.json"
    golden = json.loads(path.read_text())
    golden["cases"][0]["logits"][0] += 1
    path.write_text(json.dumps(golden))
    restate_hashes(bundle)


def test_bundle_that_predicts_something_else_is_neither_pushed_nor_pulled(
    current_copy: Path,
    registry: RegistryServer,
    tmp_path: Path,
    restate_hashes: Callable[[Path], None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    give_other_logits(current_copy, restate_hashes)
    assert main(["push", str(current_copy), registry.name(":v1")]) == 1
    assert "fails its self-test: 000.png: logits: differ by 1" in capsys.readouterr().err

    source = registry.add_files(read_files(current_copy))
    assert main(["pull", source, str(tmp_path / "pulled")]) == 1
    assert "fails its self-test on this machine: 000.png: logits" in capsys.readouterr().err
    assert not (tmp_path / "pulled").exists()


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("model.onnx", "same size"),
        ("model.onnx", "shorter"),
        ("model.onnx", "longer"),
        ("model.onnx", "empty"),
        ("labels_mapping.json", "same size"),
        ("golden/000.png", "same size"),
    ],
)
def test_tampered_file_is_refused_by_name_and_the_older_bundle_stays(
    name: str, change: str, current: Path, exported: Path, registry: RegistryServer, tmp_path: Path
) -> None:
    target = Path(shutil.copytree(exported, tmp_path / "pulled"))
    digest = push_bundle(current, registry.name(":v1"))
    content = (current / name).read_bytes()
    changed = {
        "same size": content[:-1] + bytes([content[-1] ^ 1]),
        "shorter": content[:-1],
        "longer": content + b"?",
        "empty": b"",
    }
    registry.blobs[f"sha256:{hashlib.sha256(content).hexdigest()}"] = changed[change]
    for version in (f"@{digest}", ":v1"):
        with pytest.raises(BundleError, match=f"{name} is damaged or was changed"):
            pull_bundle(registry.name(version), target)
    assert read_files(target) == read_files(exported)
    assert [path.name for path in tmp_path.iterdir()] == ["pulled"]


def test_tampered_blob_of_a_shared_folder_is_refused(current: Path, tmp_path: Path) -> None:
    store = f"file://{tmp_path}/store"
    digest = push_bundle(current, f"{store}:v1")
    model = hashlib.sha256((current / "model.onnx").read_bytes()).hexdigest()
    blob = tmp_path / "store/blobs/sha256" / model
    blob.write_bytes(blob.read_bytes()[:-1] + b"?")
    with pytest.raises(BundleError, match=r"model\.onnx is damaged or was changed"):
        pull_bundle(f"{store}@{digest}", tmp_path / "pulled")


def test_manifest_of_another_bundle_under_a_digest_is_refused(
    current: Path, exported: Path, registry: RegistryServer, tmp_path: Path
) -> None:
    wanted = push_bundle(current, registry.name(":v1"))
    other = push_bundle(exported, registry.name(":v2"))
    registry.manifests[wanted] = registry.manifests[other]
    with pytest.raises(BundleError, match=f"its digest is {other}, expected {wanted}"):
        pull_bundle(registry.name(f"@{wanted}"), tmp_path / "pulled")


@pytest.mark.parametrize("content", ["a file", "notes.txt", "README.md", ".git/HEAD"])
def test_target_that_holds_something_else_is_refused_before_anything_is_fetched(
    content: str, current: Path, registry: RegistryServer, tmp_path: Path
) -> None:
    target = tmp_path / "target"
    if content == "a file":
        target.write_text("mine")
    else:
        (target / content).parent.mkdir(parents=True)
        (target / content).write_text("mine")
    push_bundle(current, registry.name(":v1"))
    before = len(registry.requests)
    with pytest.raises(BundleError, match="choose"):
        pull_bundle(registry.name(":v1"), target)
    assert len(registry.requests) == before
    assert (target if content == "a file" else target / content).read_text() == "mine"


@pytest.mark.parametrize("target", [".", "..", ""])
def test_current_folder_is_not_replaced(
    target: str, registry: RegistryServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "models").mkdir()
    monkeypatch.chdir(tmp_path / "models")
    with pytest.raises(BundleError, match="is the current folder, or contains it"):
        pull_bundle(registry.name(":v1"), target)
    assert registry.requests == []


def test_bundle_that_appears_during_a_pull_is_replaced(
    current: Path, exported: Path, registry: RegistryServer, tmp_path: Path
) -> None:
    push_bundle(current, registry.name(":v1"))
    target = tmp_path / "pulled"

    def be_faster(handler: Handler) -> bool:
        if "/blobs/" in handler.path and not target.exists():
            shutil.copytree(exported, target)
        return False

    registry.override = be_faster
    pull_bundle(registry.name(":v1"), target)
    assert read_files(target) == read_files(current)
    assert [path.name for path in tmp_path.iterdir()] == ["pulled"]


def test_empty_folder_and_older_bundle_are_replaced(
    current: Path, exported: Path, registry: RegistryServer, tmp_path: Path
) -> None:
    push_bundle(current, registry.name(":v1"))
    empty = tmp_path / "empty"
    empty.mkdir()
    older = Path(shutil.copytree(exported, tmp_path / "older"))
    for target in (empty, older):
        pull_bundle(registry.name(":v1"), target)
        assert read_files(target) == read_files(current)


def test_draft_of_a_killed_pull_is_deleted_by_the_next_one(
    current: Path, registry: RegistryServer, tmp_path: Path
) -> None:
    push_bundle(current, registry.name(":v1"))
    target = tmp_path / "pulled"
    own = draft_path(target)
    dead = own.with_name(own.name.replace(f".{own.name.split('.')[-2]}.", ".4194999."))
    (dead / "golden").mkdir(parents=True)
    pull_bundle(registry.name(":v1"), target)
    assert [path.name for path in tmp_path.iterdir()] == ["pulled"]


@pytest.mark.parametrize("status", [429, 500, 503])
def test_temporary_failures_are_repeated(
    status: int, current: Path, registry: RegistryServer, tmp_path: Path
) -> None:
    push_bundle(current, registry.name(":v1"))
    registry.failures = [status, status]
    pull_bundle(registry.name(":v1"), tmp_path / "pulled")
    registry.failures = [status] * 3
    with pytest.raises(TransferError, match=f"does not return v1 .HTTP {status}"):
        pull_bundle(registry.name(":v1"), tmp_path / "again")


@pytest.mark.parametrize(
    ("header", "requests", "message"),
    [
        ("1", 3, "Try again in 1 seconds"),
        ("Thu, 01 Jan 2099 00:00:00 GMT", 3, r"\(HTTP 429\)$"),
        ("3600", 1, "Try again in 3600 seconds"),
        ("9" * 5_000, 3, r"\(HTTP 429\)$"),
        ("soon", 3, r"\(HTTP 429\)$"),
        ("-1", 3, r"\(HTTP 429\)$"),
    ],
)
def test_wait_that_a_registry_asks_for_is_kept_up_to_a_minute(
    header: str,
    requests: int,
    message: str,
    registry: RegistryServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    waits: list[float] = []
    monkeypatch.setattr(stores.time, "sleep", waits.append)

    def refuse(handler: Handler) -> bool:
        handler.answer(429, b"", {"Retry-After": header})
        return True

    registry.override = refuse
    with pytest.raises(TransferError, match=message):
        pull_bundle(registry.name(":v1"), tmp_path / "pulled")
    assert registry.count("GET") == requests
    assert waits == [float(header == "1")] * (requests - 1)


def test_missing_versions_and_repositories_are_wrong_input(
    place: str, current: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    push_bundle(current, f"{place}:v1")
    missing = (f"{place}:v2", f"{place}@sha256:{'0' * 64}", f"{place}-2:v1")
    for source in missing:
        assert main(["pull", source, str(tmp_path / "pulled")]) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert "Check the" in error
    assert not (tmp_path / "pulled").exists()


def test_unreachable_registry_is_failed_work(
    current: Path, registry: RegistryServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    registry.server_close()
    assert main(["push", str(current), registry.name(":v1")]) == 1
    assert main(["pull", registry.name(":v1"), str(tmp_path / "pulled")]) == 1
    for line in capsys.readouterr().err.splitlines():
        assert f"{registry.host}: " in line
        assert "Check the address and the network" in line


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("HTTPS_PROXY", "garbage://user:s3cret@proxy"),
        ("ALL_PROXY", "http://user:s3cret@[::1"),
        ("SSL_CERT_FILE", "/no/such/file"),
        ("SSL_CERT_FILE", __file__),
    ],
)
def test_invalid_settings_of_the_environment_are_named_without_passwords(
    name: str,
    value: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv(name, value)
    assert main(["pull", "oci://registry.invalid/m:v1", str(tmp_path / "pulled")]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert name in error
    assert "s3cret" not in error


def test_proxy_is_not_used_for_this_machine(
    current: Path, registry: RegistryServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    digest = push_bundle(current, registry.name(":v1"))
    assert pull_bundle(registry.name(":v1"), tmp_path / "pulled") == digest


LIMITED = """
import resource, sys
from cls_export.cli.main import main
resource.setrlimit(resource.RLIMIT_FSIZE, (1_000, 1_000))
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize("command", ["push", "pull"])
def test_file_that_cannot_be_written_is_one_message_with_the_target(
    command: str, current: Path, tmp_path: Path
) -> None:
    pytest.importorskip("resource")
    store, target = tmp_path / "store", tmp_path / "pulled"
    arguments = [str(current), f"file://{store}:v2"]
    expected = f"{store}/blobs/sha256/"
    if command == "pull":
        push_bundle(current, f"file://{store}:v1")
        arguments, expected = [f"file://{store}:v1", str(target)], f"{target}: "
    result = subprocess.run(
        [sys.executable, "-c", LIMITED, command, *arguments], capture_output=True, text=True
    )
    assert result.returncode == 1
    assert result.stderr.count("\n") == 1
    assert expected in result.stderr
    assert "File too large" in result.stderr
    assert not target.exists()
    assert [*tmp_path.rglob("*.draft")] == []


def test_bundle_that_changes_while_it_is_pushed_to_a_folder_is_not_stored(
    current_copy: Path, tmp_path: Path
) -> None:
    store = FolderStore(parse_reference(f"file://{tmp_path}/store:v1"))
    blob = Blob.of_file(current_copy / "model.onnx")
    (current_copy / "model.onnx").write_bytes(bytes(blob.size))
    with pytest.raises(BundleError, match="was replaced while it was read"):
        store.upload_blob(blob, current_copy / "model.onnx")
    assert not store.has_blob(blob)


def test_damaged_tag_of_a_folder_is_named_and_repaired_by_a_push(
    current: Path, tmp_path: Path
) -> None:
    name = f"file://{tmp_path}/store:v1"
    digest = push_bundle(current, name)
    (tmp_path / "store/tags/v1").write_bytes(b"\xff")
    with pytest.raises(BundleError, match="the tag does not hold a digest"):
        pull_bundle(name, tmp_path / "pulled")
    assert push_bundle(current, name) == digest
    assert pull_bundle(name, tmp_path / "pulled") == digest


def test_pull_without_version_and_push_to_a_digest_are_refused(
    place: str, current: Path, tmp_path: Path
) -> None:
    with pytest.raises(RemoteBundleError, match="which bundle"):
        pull_bundle(place, tmp_path / "pulled")
    for target in (place, f"{place}@sha256:{'0' * 64}"):
        with pytest.raises(RemoteBundleError, match="pushed to a tag"):
            push_bundle(current, target)
