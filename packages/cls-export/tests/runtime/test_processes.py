"""A classifier can be pickled, copied, and used in other processes (row B8)."""

import copy
import multiprocessing
import os
import pickle
import shutil
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from cls_export import BundleError, Classifier, Reject

FORK = """
import os, signal, sys
import numpy as np
from cls_export import Classifier

classifier = Classifier(sys.argv[1], threads=2)
images = sys.argv[2:]
expected = classifier.logits(images)
child = os.fork()
if child == 0:
    signal.alarm(30)
    is_equal = not images or np.array_equal(classifier.logits(images), expected)
    del classifier
    sys.exit(0 if is_equal else 1)
_, status = os.waitpid(child, 0)
sys.exit(os.waitstatus_to_exitcode(status))
"""
"""Uses the classifier of a parent process, if there are images, deletes it, and exits."""


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_pickled_classifier_gives_same_logits(
    current: Path, image_files: list[Path], protocol: int
) -> None:
    classifier = Classifier(current)
    clone = pickle.loads(pickle.dumps(classifier, protocol))
    assert np.array_equal(clone.logits(image_files), classifier.logits(image_files))
    assert clone.labels == classifier.labels
    assert clone.has_checked_hash


def test_pickled_classifier_keeps_its_settings(current: Path) -> None:
    classifier = Classifier(current, threads=3, batch_size=5, low_memory=True, allow_cpu=True)
    clone = pickle.loads(pickle.dumps(classifier))
    options = clone._session.get_session_options()
    original = classifier._session.get_session_options()
    assert options.intra_op_num_threads == 3
    assert options.graph_optimization_level == original.graph_optimization_level
    assert (clone._batch_size, clone._allow_cpu) == (5, True)


def test_pickled_classifier_keeps_changed_thresholds(current: Path) -> None:
    classifier = Classifier(current)
    reject = Reject(threshold=0.9, wanted="coverage", level=0.6, images=5)
    classifier.labels = classifier.labels.model_copy(update={"reject": reject})
    assert pickle.loads(pickle.dumps(classifier)).labels.reject == reject
    assert copy.deepcopy(classifier).labels.reject == reject


@pytest.mark.parametrize("form", ["folder", "model"])
def test_relative_path_is_reopened_after_a_change_of_the_working_directory(
    current_copy: Path,
    image_files: list[Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    form: str,
) -> None:
    monkeypatch.chdir(current_copy.parent)
    name = current_copy.name if form == "folder" else f"{current_copy.name}/model.onnx"
    classifier = Classifier(name)
    data = pickle.dumps(classifier)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert np.array_equal(pickle.loads(data).logits(image_files), classifier.logits(image_files))


@pytest.mark.parametrize("change", ["replaced", "deleted", "damaged"])
def test_changed_bundle_is_named_on_reopening(
    current_copy: Path, exported: Path, change: str
) -> None:
    data = pickle.dumps(Classifier(current_copy))
    if change != "damaged":
        shutil.rmtree(current_copy)
    if change == "replaced":
        shutil.copytree(exported, current_copy)
    if change == "damaged":
        (current_copy / "model.onnx").write_bytes(b"damaged")
    messages = {
        "replaced": "has changed since the classifier was created; create it again",
        "deleted": "no such bundle",
        "damaged": r"model\.onnx is damaged",
    }
    with pytest.raises(BundleError, match=messages[change]):
        pickle.loads(data)


@pytest.mark.parametrize("make_copy", [copy.copy, copy.deepcopy])
def test_copies_share_the_session_and_outlive_the_bundle(
    current_copy: Path, image_files: list[Path], make_copy: type
) -> None:
    classifier = Classifier(current_copy)
    shutil.rmtree(current_copy)
    clone = make_copy(classifier)
    assert clone is not classifier
    assert clone._session is classifier._session
    assert np.array_equal(clone.logits(image_files), classifier.logits(image_files))


def test_subclass_keeps_its_own_attributes(current: Path) -> None:
    classifier = Tagged(current)
    classifier.tags = ["camera 1"]
    clone = pickle.loads(pickle.dumps(classifier))
    deep = copy.deepcopy(classifier)
    assert (clone.tags, deep.tags) == (["camera 1"], ["camera 1"])
    assert deep.tags is not classifier.tags


class Tagged(Classifier):
    tags: list[str]


@pytest.mark.parametrize("kind", ["pool", "executor"])
def test_spawned_workers_give_same_predictions(
    current: Path, image_files: list[Path], kind: str
) -> None:
    classifier = Classifier(current, threads=1)
    expected = classifier.predict(image_files)
    context = multiprocessing.get_context("spawn")
    parts = [image_files[:2], image_files[2:]]
    if kind == "pool":
        with context.Pool(2) as pool:
            results = pool.map(classifier.predict, parts)
    else:
        with ProcessPoolExecutor(2, mp_context=context) as executor:
            results = list(executor.map(classifier.predict, parts))
    assert [prediction for part in results for prediction in part] == expected


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.parametrize("images", [0, 5])
def test_forked_process_does_not_wait_for_threads_of_its_parent(
    current: Path, image_files: list[Path], images: int
) -> None:
    command = [sys.executable, "-c", FORK, str(current), *map(str, image_files[:images])]
    subprocess.run(command, check=True, timeout=60)
