"""Bad data and bad settings: one message before training, exit code 2, and no run folder."""

from pathlib import Path
from typing import Any

import pytest

ROW = '{"image": "0.png", "suffix": "7"}\n'


def append(path: Path, text: str) -> None:
    with path.open("a") as stream:
        stream.write(text)


def malformed_row(root: Path) -> None:
    append(root / "train/annotations.jsonl", '{"image": "0.png", "suffix": 7}\n{"image"\n')


def unknown_key(root: Path) -> None:
    append(root / "train/annotations.jsonl", '{"image": "0.png", "suffix": "7", "lable": "7"}\n')


def missing_image(root: Path) -> None:
    (root / "valid/1.png").unlink()


def truncated_image(root: Path) -> None:
    data = (root / "valid/1.png").read_bytes()
    (root / "valid/1.png").write_bytes(data[: len(data) // 2])


def path_outside_the_root(root: Path) -> None:
    (root.parent / "other.png").write_bytes((root / "train/0.png").read_bytes())
    append(root / "train/annotations.jsonl", '{"image": "../../other.png", "suffix": "7"}\n')


def empty_split(root: Path) -> None:
    (root / "valid/annotations.jsonl").write_text("")


def unseen_label(root: Path) -> None:
    append(root / "valid/annotations.jsonl", '{"image": "0.png", "suffix": "99"}\n')


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (
            malformed_row,
            [
                "train/annotations.jsonl:7: suffix is the number 7",
                "annotations.jsonl:8: not valid JSON",
            ],
        ),
        (
            unknown_key,
            [
                "train/annotations.jsonl:7: unknown key 'lable'",
                "Correct the rows, or leave them out",
            ],
        ),
        (missing_image, ["valid/annotations.jsonl:2: image '1.png' does not exist"]),
        (
            truncated_image,
            [
                "valid/annotations.jsonl:2: valid/1.png: ",
                "cannot be decoded (cut short: a PNG file",
                "--quarantine FILE",
            ],
        ),
        (
            path_outside_the_root,
            ["train/annotations.jsonl:7: image '../../other.png' leaves the data root"],
        ),
        (empty_split, ["valid: the split is empty"]),
        (
            unseen_label,
            ["valid/annotations.jsonl:3: valid/0.png: label '99' does not occur in train"],
        ),
    ],
)
def test_bad_data_is_reported_with_file_and_line(
    run_app: Any, data_root: Path, damage: Any, expected: list[str]
) -> None:
    damage(data_root)
    code, message = run_app("data=jsonl", f"data.root={data_root}")
    assert code == 2
    assert "apps/train: " in message
    assert "Traceback" not in message
    for text in expected:
        assert text in message
    assert not (data_root.parent / "runs").exists()


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        (
            "trainer.max_epoch=3",
            "trainer.max_epoch: Trainer takes no 'max_epoch'; did you mean 'max_epochs'?",
        ),
        (
            "trianer.max_epochs=3",
            "trianer: unknown key; did you mean 'trainer'?",
        ),
        ("sed=3", "sed: unknown key; did you mean 'seed'?"),
        (
            "augmentation.color.contrasts=0.1",
            "augmentation.color.contrasts: unknown key; did you mean 'contrast'?",
        ),
        (
            "data.batch_sise=3",
            "data.batch_sise: DataModuleConfig takes no 'batch_sise'; did you mean 'batch_size'?",
        ),
        ("monitor.metrics=valid_loss", "monitor.metrics: unknown key; did you mean 'metric'?"),
        ("surprise=1", "surprise: unknown key"),
        (
            "monitor.metric=valid_f1",
            "monitor.metric: 'valid_f1' is not logged; did you mean 'valid_top1'?",
        ),
        ("monitor.mode=maximum", "monitor.mode: expected 'max' or 'min', got 'maximum'"),
        ("model=resnet19", "model: 'resnet19' is not a choice; did you mean 'resnet18'?"),
        ("model.name=resnet81", "model.name: unknown backbone 'resnet81'; did you mean 'resnet18'"),
        (
            "data.batch_size=0",
            "data.batch_size: expected a number of at least 1, got 0",
        ),
        (
            "preprocessing.size=[0,64]",
            "preprocessing.size.0: expected a number of at least 1, got 0",
        ),
        ("model.num_classes=5", "model.num_classes is 5, but the training split has 2 classes"),
        ("run.name=../up", "run.name: expected letters, digits, and _ . = -"),
        (
            "~callbacks.best_and_last",
            "expected exactly one cls_callbacks.BestAndLastCheckpoint, got 0",
        ),
        ("model.weights=nowhere.pth", "weights 'nowhere.pth': no such file"),
        ("seed=one", "seed: expected an integer"),
        (
            "model=null",
            "model: 'null' is not a choice; valid names: convnext_tiny, efficientnet_b0",
        ),
        (
            "model=torchvision",
            "model.name is required; set it with model.name=VALUE",
        ),
        ("model=torchvision model.name=convnext_tyni", "did you mean 'convnext_tiny'"),
        ("model.weights=IMAGENET1K_V9", "did you mean 'IMAGENET1K_V1'"),
        (
            "model=torchvision model.name=alexnet preprocessing.size=[24,24]",
            "the smallest square that works is 63x63",
        ),
        (
            "preprocessing=pretrained",
            "'weights' needs pretrained weights, but model.weights is null",
        ),
        (
            "preprocessing=crop224 preprocessing.size=auto",
            "'auto' cannot be combined with resize: shortest_edge",
        ),
        (
            "preprocessing.size=auto preprocessing.resample=auto",
            "preprocessing.resample: 'auto' is supported for size, mean, and std only",
        ),
        (
            "data.batch_size=1 preprocessing.size=[32,32] model=resnet34 model.stem=standard",
            "batches of one image",
        ),
        (
            "trainer.precision=16-mixed",
            "precision 16-mixed is not supported: a CPU cannot train in float16",
        ),
        ("trainer.precision=8-bit", "trainer.precision: expected auto or 32-true or 16-mixed"),
        (
            "transfer=linear_probe transfer.cache_features=true",
            "features cannot be cached with augmentation",
        ),
        (
            "transfer.frozen=all_but_head",
            "transfer.frozen: transfer is none; choose one first, such as transfer=fine_tune",
        ),
        (
            "transfer=staged transfer.unfreeze_at=[2,1]",
            "unfreeze_at must be increasing epochs of at least 1, got [2, 1]",
        ),
        ("distillation=checkpoint", "distillation.run is required"),
        (
            "distillation=checkpoint distillation.run=nowhere",
            "nowhere: no config.yaml; expected the folder of a run",
        ),
        (
            "model.init_from=nowhere",
            "nowhere: no such run; expected a run folder, a .ckpt in it, or its export/ folder",
        ),
        (
            "model.init_from=mine",
            "mine: labels_mapping.json is missing; expected the folder of a run",
        ),
        (
            "distillation=checkpoint distillation.run=mine",
            "mine: no config.yaml; expected the folder of a run",
        ),
        (
            "loss=logit_adjusted data.class_weights=balanced",
            "data.class_weights=balanced both correct the class imbalance",
        ),
        (
            "loss=logit_adjusted data.sampler=weighted",
            "data.sampler=weighted both correct the class imbalance",
        ),
        (
            "data.growing_sizes=[{until:0.5,size:[8,8]},{until:0.2,size:[16,16]}]",
            "expected `until` to increase from stage to stage",
        ),
        (
            "augmentation=null",
            "augmentation: 'null' is not a choice; valid names: broadcast, light, none, photo",
        ),
        (
            "optimizer=sgd optimizer.momentun=0.8",
            "optimizer.momentun: SGD takes no 'momentun'; did you mean 'momentum'?",
        ),
        ("optimizer=sgd optimizer.betas=1", "optimizer.betas: SGD takes no 'betas'"),
        ("preprocessing=crop224 preprocessing.resize_too=3", "did you mean 'resize_to'?"),
        (
            "trainer.max_epochs=two",
            "trainer.max_epochs: expected an integer, got 'two'",
        ),
        (
            "trainer.max_epochs=0",
            "trainer.max_epochs: expected an integer of at least 1, got 0",
        ),
        ("trainer.limit_val_batches=0", "trainer.limit_val_batches: expected"),
        (
            "trainer.max_steps=9",
            "trainer.max_steps: a run limited by steps cannot be resumed exactly",
        ),
        (
            "callbacks.best_and_last.every_minutes=0",
            "every_minutes must be above 0, or null to turn it off, got 0",
        ),
        ("run.remote=no://b", "run.remote=no://b: Protocol not known: no. Expected gs://BUCKET"),
        ("run.remote=/no/such/folder", "/no/such/folder: the folder does not exist"),
        ("run.remote=/dev/null", "/dev/null is not a folder. Choose another one as run.remote"),
        ("run.remote=s3:/b/x", "run.remote: expected gs://BUCKET/FOLDER, s3://BUCKET/FOLDER"),
        ("run.remote=https://host/x", "run.remote: a web server cannot be written; expected gs://"),
        ("run.remote=gs://", "run.remote: expected gs://BUCKET/FOLDER, s3://BUCKET/FOLDER"),
        ("run.remote=simplecache::s3://b", "run.remote: expected gs://BUCKET/FOLDER"),
        ("run.remote=ftp://me:secret@host/x", "ftp://… holds a password, which config.yaml would"),
        ("run.remote=", "run.remote: expected gs://BUCKET/FOLDER"),
        ("trainer.devices=0", "trainer.devices: expected a number of devices of at least 1"),
        (
            "trainer.default_root_dir=x",
            "trainer.default_root_dir: the app sets this argument; remove it",
        ),
        (
            "data.class_weights=balanced loss=focal loss.weight=[1,2]",
            "loss.weight: the app sets this argument; remove it",
        ),
        ("optimizer.lr=abc", "optimizer.lr: expected a number, got 'abc'"),
        ("optimizer.lr=-1", "optimizer: Invalid learning rate: -1"),
        ("scheduler.warmup=2", "scheduler: warmup is a fraction of the training steps"),
        ("loss.label_smoothing=2", "loss: label_smoothing must be between 0.0 and 1.0"),
        ("scheduler=none scheduler.warmup=0.2", "scheduler.warmup: scheduler is none; choose one"),
        (
            "logger.mine.name=x",
            "logger.mine: unknown name; valid names: tensorboard. To add it, "
            "set logger.mine._target_",
        ),
        ("loss._target_=torch.nn.Flatten ~loss.label_smoothing", "loss: "),
        (
            "augmentation._target_=torch.nn.ReLU",
            "augmentation: torch.nn.ReLU builds ReLU, expected Augmentation",
        ),
        (
            "monitor.metric=valid_loss",
            "monitor.mode: 'max' would select the worst valid_loss",
        ),
        (
            "+hydra.callbacks.x._target_=shutil.copy",
            "hydra.callbacks.x._target_: use the group callbacks",
        ),
        (
            "hydra.launcher._target_=os.system",
            "hydra.launcher._target_: the runs of a sweep follow one another",
        ),
        (
            "-m +hydra.callbacks.x._target_=shutil.copy seed=1,2",
            "hydra.callbacks.x._target_: use the group callbacks",
        ),
        (
            "data=synthetic_tiny data.synthetic.classes=[0,7]",
            "data.synthetic.classes.0: expected text",
        ),
        ("optimizer._partial_=false", "optimizer: set optimizer._partial_=true"),
        ("-m seed=1,2 sed=3", "sed: unknown key; did you mean 'seed'?"),
    ],
)
def test_a_bad_setting_is_reported_with_its_key_path(
    run_app: Any, data_root: Path, override: str, expected: str
) -> None:
    code, message = run_app("data=jsonl", f"data.root={data_root}", *override.split())
    assert code == 2
    assert "Traceback" not in message
    assert expected in message
    assert not (data_root.parent / "runs").exists()


def test_a_missing_data_root_is_reported(run_app: Any, tmp_path: Path) -> None:
    code, message = run_app("data=jsonl")
    assert code == 2
    assert "data.root is required; set it with data.root=VALUE" in message
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["data=jsonl", "data.root=nowhere"], "nowhere': no such folder; name the folder"),
        (["data=folder", "data.root=nowhere"], "nowhere': no such folder; name the folder"),
        (["data.synthetic=null"], "no such folder, and data.synthetic is null"),
    ],
)
def test_a_data_root_that_does_not_exist_is_reported(
    run_app: Any, tmp_path: Path, arguments: list[str], expected: str
) -> None:
    code, message = run_app(*arguments)
    assert code == 2
    assert message.startswith("apps/train: data.root: ")
    assert expected in message
    assert list(tmp_path.iterdir()) == []


def test_a_missing_gpu_is_reported_before_data_is_read(run_app: Any, tmp_path: Path) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    code, message = run_app("trainer=gpu")
    assert code == 2
    assert "trainer.accelerator: PyTorch sees no GPU; set trainer.accelerator=cpu" in message
    assert list(tmp_path.iterdir()) == []


def test_a_nonfinite_loss_stops_the_run_with_advice(run_app: Any, data_root: Path) -> None:
    settings = [
        "optimizer=sgd",
        "optimizer.lr=1e30",
        "preprocessing.size=[40,40]",
        "trainer.log_every_n_steps=1",
    ]
    code, message = run_app("data=jsonl", f"data.root={data_root}", "data.batch_size=2", *settings)
    assert code == 1
    assert "apps/train: the training loss became" in message
    assert "optimizer.lr, clip gradients with trainer.gradient_clip_val=1.0" in message
    assert "Traceback" not in message
    (run,) = (data_root.parent / "runs").iterdir()
    assert not (run / "summary.json").exists(), "it is not finished"


def test_a_damaged_checkpoint_to_resume_from_is_reported(run_app: Any, data_root: Path) -> None:
    from cls_export.contract.run_layout import RunPaths

    overrides = [
        "data=jsonl",
        f"data.root={data_root}",
        "run.name=one",
        f"run.root={data_root.parent / 'runs'}",
        "scheduler=none",
    ]
    run_app(
        *overrides, "trainer.max_epochs=1", "preprocessing.size=[32,32]", "stages.evaluate=false"
    )
    run = RunPaths(data_root.parent / "runs/one")
    run.summary.unlink()
    run.last.write_bytes(run.last.read_bytes()[:1000])
    code, message = run_app(
        *overrides, "trainer.max_epochs=2", "preprocessing.size=[32,32]", "stages.evaluate=false"
    )
    assert code == 2
    assert "last.ckpt: SHA-256 does not match" in message
    assert "Traceback" not in message


@pytest.mark.parametrize(
    "setting", ["model.init_from={run}", "distillation=checkpoint distillation.run={run}"]
)
def test_a_flipped_byte_in_the_weights_of_a_source_run_is_reported(
    run_app: Any, data_root: Path, make_run: Any, setting: str
) -> None:
    run = make_run()
    best = run / "checkpoints/best.ckpt"
    content = bytearray(best.read_bytes())
    content[len(content) // 2] ^= 1  # inside the weights, where torch.load does not notice
    best.write_bytes(content)
    code, message = run_app(
        "data=jsonl", f"data.root={data_root}", *setting.format(run=run).split()
    )
    assert code == 2
    assert f"apps/train: {best}: SHA-256 does not match" in message
    assert "Traceback" not in message
    assert not (data_root.parent / "runs").exists()
