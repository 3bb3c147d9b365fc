from typing import Any

import pytest
from torch.nn import CrossEntropyLoss

from cls_data import Augmentation
from cls_export import Preprocessing
from cls_train.composition.instantiate import build, check_node
from cls_train.errors import ConfigError

HOSTILE = [
    "os.system",
    "builtins.open",
    "builtins.eval",
    "shutil.copy",
    "subprocess.run",
    "hydra.utils.instantiate",
    "cls_data.images.store.hashlib.sha256",
    "cls_train.stages.fit.subprocess.run",
    "cls_train.stages.fit._git",
    "cls_data.cli.preview.tempfile.TemporaryDirectory",
    "cls_export.contract.files.write_atomically",
    "cls_data.Predictions.load",
    "cls_export.verify_bundle",
    "lightning.pytorch.trainer.trainer.os.system",
    "lightning.pytorch.cli.instantiate_class",
    "lightning.pytorch.callbacks.model_checkpoint.shutil.rmtree",
    "lightning.fabric.utilities.cloud_io._load",
    "lightning.fabric.plugins.io.torch_io.TorchCheckpointIO.remove_checkpoint",
    "lightning.pytorch.plugins.io.TorchCheckpointIO.remove_checkpoint",
    "torchvision.datasets.utils.download_url",
    "torch.nn.modules.module.torch.load",
    "torch.load",
    "torch.hub.load",
    "torch.optim",
    "cls_data.annotations.reading.SPLITS",
    "os.popen",
    "os.remove",
    "posix.system",
    "pty.spawn",
    "sys.exit",
    "pickle.loads",
    "importlib.import_module",
    "builtins.exec",
    "builtins.__import__",
    "pathlib.Path.unlink",
    "urllib.request.urlopen",
    "ctypes.CDLL",
    "webbrowser.open",
    "runpy.run_path",
    "numpy.load",
    "numpy.ctypeslib.load_library",
    "onnxruntime.InferenceSession",
    "PIL.Image.open",
    "torch.utils.cpp_extension.load",
    "torch.nn.functional.torch.load",
    "torch.optim.lr_scheduler.types.FunctionType",
    "torch.distributed.run.main",
    "cls_models.build_backbone.__globals__",
    "cls_data.Quarantine.load",
    "cls_callbacks.AtomicCheckpointIO.remove_checkpoint",
    "cls_callbacks.remote.storage.fsspec.open",
    "lightning.pytorch.callbacks.callback.__builtins__.eval",
    "lightning.pytorch.loggers.logger.functools.partial",
    "torchvision.models.get_model.__class__",
    "",
    3,
    None,
    ["os", "system"],
]


@pytest.mark.faults
@pytest.mark.parametrize("target", HOSTILE)
def test_only_classes_of_this_project_and_listed_libraries_may_be_built(target: Any) -> None:
    nested = {"_target_": "lightning.pytorch.Trainer", "plugins": [{"_target_": target}]}
    for node in ({"_target_": target}, nested):
        with pytest.raises(
            ConfigError, match=r"is not allowed|expected the dotted name of a class"
        ):
            check_node(node, "model")
    check_node({**nested, "plugins": [{"_target_": "cls_callbacks.AtomicCheckpointIO"}]}, "model")


def test_positional_arguments_are_refused() -> None:
    with pytest.raises(ConfigError, match="takes no '_args_'"):
        check_node({"_target_": "cls_callbacks.EMA", "_args_": [0.5]}, "ema")


def test_a_misspelled_class_suggests_the_closest() -> None:
    with pytest.raises(
        ConfigError,
        match=r"callbacks.ema._target_: cls_callbacks has no 'EMAA'; did you mean 'EMA'\?",
    ):
        check_node({"_target_": "cls_callbacks.EMAA"}, "callbacks.ema")


def test_a_misspelled_argument_suggests_the_closest() -> None:
    with pytest.raises(
        ConfigError, match=r"ema.decai: EMA takes no 'decai'; did you mean 'decay'\?"
    ):
        check_node({"_target_": "cls_callbacks.EMA", "decai": 0.9}, "ema")


def test_a_message_of_a_validator_does_not_show_the_whole_node() -> None:
    node = {
        "_target_": "cls_data.DataModuleConfig",
        "root": "x",
        "layout": "folder",
        "annotations": "a",
    }
    with pytest.raises(ConfigError) as caught:
        build(node, "data", object)
    message = str(caught.value)
    assert message.startswith("data: annotations=")
    assert "Value error" not in message
    assert "layout'" not in message


def test_a_refused_argument_is_reported_with_its_key_path() -> None:
    flips = {"_target_": "cls_data.LightAugmentation", "geometry": {"horizontal_flip": 3}}
    with pytest.raises(
        ConfigError,
        match=r"^augmentation.geometry.horizontal_flip: expected a number of at most",
    ):
        build(flips, "augmentation", Augmentation)
    with pytest.raises(
        ConfigError, match=r"preprocessing.mean is required; set it with preprocessing.mean=VALUE"
    ):
        build(
            {"_target_": "cls_export.Preprocessing", "size": [8, 8]}, "preprocessing", Preprocessing
        )


def test_build_passes_runtime_arguments() -> None:
    loss = build(
        {"_target_": "torch.nn.CrossEntropyLoss", "label_smoothing": 0.2},
        "loss",
        CrossEntropyLoss,
        ignore_index=3,
    )
    assert (loss.label_smoothing, loss.ignore_index) == (0.2, 3)
