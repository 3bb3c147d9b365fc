"""Each ends in one clear message before training starts, with exit code 2 and no run folder."""

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


def path_that_leaves_the_root(root: Path) -> None:
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
                "bytes: cut short: a PNG file",
                "--quarantine FILE",
            ],
        ),
        (
            path_that_leaves_the_root,
            ["train/annotations.jsonl:7: image '../../other.png' leaves the data root"],
        ),
        (empty_split, ["valid: the split is empty"]),
        (
            unseen_label,
            ["valid/annotations.jsonl:3: valid/0.png: label '99' is in no row of train"],
        ),
    ],
)
def test_bad_data_is_named_by_file_and_line(
    run_app: Any, data_root: Path, damage: Any, expected: list[str]
) -> None:
    damage(data_root)
    code, message = run_app("data=jsonl", f"data.root={data_root}")
    assert code == 2
    assert "DataError: " in message
    assert "Traceback" not in message
    for part in expected:
        assert part in message
    assert not (data_root.parent / "runs").exists()


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("trainer.max_epoch=3", "trainer.max_epoch: unknown key; did you mean 'max_epochs'?"),
        (
            "trianer.max_epochs=3",
            "trianer.max_epochs: unknown key; did you mean 'trainer.max_epochs'?",
        ),
        ("sed=3", "sed: unknown key; did you mean 'seed'?"),
        ("data.batch_sise=3", "data.batch_sise: unknown key"),
        ("trainer.gradient_clip_val=1", "write +trainer.gradient_clip_val=VALUE"),
        (
            "+trainer.max_epoch=3",
            "trainer.max_epoch: Trainer takes no 'max_epoch'; did you mean 'max_epochs'?",
        ),
        (
            "+data.batch_sise=3",
            "data.batch_sise: DataModuleConfig takes no 'batch_sise'; did you mean 'batch_size'?",
        ),
        ("+monitor.metrics=valid_loss", "monitor.metrics: unknown key; did you mean 'metric'?"),
        ("+surprise=1", "surprise: unknown key"),
        (
            "monitor.metric=valid_f1",
            "monitor.metric: 'valid_f1' is not logged; did you mean 'valid_top1'?",
        ),
        ("monitor.mode=maximum", "monitor.mode: Input should be 'max' or 'min', got 'maximum'"),
        ("model=resnet19", "Could not find 'model/resnet19'"),
        ("model.name=resnet81", "model: unknown backbone 'resnet81'; did you mean 'resnet18'"),
        (
            "+data.batch_size=0",
            "data.batch_size: Input should be greater than or equal to 1, got 0",
        ),
        (
            "preprocessing.size=[0,64]",
            "preprocessing.size.0: Input should be greater than or equal to 1, got 0",
        ),
        ("+model.num_classes=5", "model.num_classes is 5, but the training split has 2 classes"),
        ("run.name=../up", "run.name: String should match pattern"),
        (
            "~callbacks.best_and_last",
            "0 of them are cls_callbacks.BestAndLastCheckpoint; exactly one is needed",
        ),
        ("model.weights=nowhere.pth", "weights 'nowhere.pth': no such file"),
        ("seed=one", "seed: Input should be a valid integer"),
        ("model=null", "model: 'null' is not a choice; choices are convnext_tiny, efficientnet_b0"),
        (
            "model=torchvision",
            "model.name has no value; give it one on the command line: model.name=VALUE",
        ),
        ("model=torchvision model.name=convnext_tyni", "did you mean 'convnext_tiny'"),
        ("model.weights=IMAGENET1K_V9", "did you mean 'IMAGENET1K_V1'"),
        (
            "model=torchvision model.name=alexnet preprocessing.size=[24,24]",
            "the smallest square that works is 63x63",
        ),
        (
            "preprocessing=pretrained",
            "'weights' takes it from pretrained weights, and model.weights is null",
        ),
        (
            "preprocessing=crop224 preprocessing.size=auto",
            "'auto' cannot be used with resize: shortest_edge",
        ),
        (
            "preprocessing.size=auto +preprocessing.resample=auto",
            "preprocessing.resample: 'auto' is for size, mean and",
        ),
        (
            "+data.batch_size=1 preprocessing.size=[32,32] model=resnet34 +model.stem=standard",
            "batches of one image",
        ),
        (
            "+trainer.precision=16-mixed",
            "precision 16-mixed was asked for on a CPU, which does not train in float16",
        ),
        ("+trainer.precision=8-bit", "unknown precision '8-bit'; did you mean"),
        (
            "transfer=linear_probe +transfer.cache_features=true",
            "features cannot be cached with augmentation",
        ),
        ("+transfer.frozen=all_but_head", "transfer: has no _target_"),
        (
            "transfer=staged transfer.unfreeze_at=[2,1]",
            "unfreeze_at must be rising epochs from 1 on, got [2, 1]",
        ),
        ("distillation=checkpoint", "distillation.run has no value; give it one"),
        (
            "distillation=checkpoint distillation.run=nowhere",
            "nowhere: no config.yaml, so this is not a run's folder",
        ),
        (
            "+model.init_from=nowhere",
            "nowhere: no such run; expected a run's folder, a .ckpt in it, or its export/",
        ),
        (
            "+model.init_from=mine",
            "mine: labels_mapping.json is missing; expected the folder of a run",
        ),
        (
            "distillation=checkpoint distillation.run=mine",
            "mine: no config.yaml, so this is not a run's folder",
        ),
        (
            "loss=logit_adjusted +data.class_weights=balanced",
            "corrects the imbalance, and so does data.class_weights",
        ),
        (
            "loss=logit_adjusted +data.sampler=weighted",
            "corrects the imbalance, and so does data.sampler=weighted",
        ),
        (
            "+data.growing_sizes=[{until:0.5,size:[8,8]},{until:0.2,size:[16,16]}]",
            "each stage must last longer than the one before",
        ),
        (
            "augmentation=null",
            "augmentation: 'null' is not a choice; choices are broadcast, light, none, photo, randaugment, trivial; to",
        ),
        (
            "optimizer=sgd optimizer.momentun=0.8",
            "optimizer.momentun: unknown key; did you mean 'momentum'?",
        ),
        ("optimizer=sgd optimizer.betas=1", "optimizer.betas: unknown key"),
        ("preprocessing=crop224 preprocessing.resize_too=3", "did you mean 'resize_to'?"),
        (
            "trainer.max_epochs=two",
            "trainer.max_epochs: expected a number of epochs from 1 on, got 'two'",
        ),
        (
            "trainer.max_epochs=0",
            "trainer.max_epochs: expected a number of epochs from 1 on, got 0",
        ),
        ("+trainer.limit_val_batches=0", "no validation would ever run"),
        ("+trainer.max_steps=9", "trainer.max_steps: a run that ends so cannot be resumed exactly"),
        (
            "callbacks.best_and_last.every_minutes=0",
            "every_minutes must be above 0, or null for epochs alone, got 0",
        ),
        ("+callbacks.best_and_last.copy_to=no://b", "copy_to 'no://b': Protocol not known: no"),
        ("trainer.devices=2", "trainer.devices: the app trains on one device, got 2"),
        (
            "+trainer.default_root_dir=x",
            "trainer.default_root_dir: is supplied by the app; remove it",
        ),
        (
            "+data.class_weights=balanced +loss.weight=[1,2]",
            "loss.weight: is supplied by the app; remove it",
        ),
        ("optimizer.lr=abc", "optimizer: "),
        ("optimizer.lr=-1", "optimizer: Invalid learning rate: -1"),
        ("+scheduler.warmup=2", "scheduler: warmup is a share of the training steps"),
        ("loss.label_smoothing=2", "loss: label_smoothing must be between 0.0 and 1.0"),
        ("scheduler=none +scheduler.warmup=0.2", "scheduler: has no _target_"),
        ("+logger.mine.name=x", "logger.mine: has no _target_"),
        ("loss._target_=torch.nn.Flatten ~loss.label_smoothing", "loss: "),
        (
            "augmentation._target_=torch.nn.ReLU",
            "augmentation: torch.nn.ReLU makes a ReLU, expected Augmentation",
        ),
        (
            "monitor.metric=valid_loss",
            "monitor.mode: 'max' would keep the worst valid_loss as best",
        ),
        (
            "+hydra.callbacks.x._target_=shutil.copy",
            "hydra.callbacks: Hydra would build these before",
        ),
        (
            "hydra.launcher._target_=os.system",
            "hydra.launcher._target_: 'os.system' may not be built",
        ),
        (
            "-m +hydra.callbacks.x._target_=shutil.copy seed=1,2",
            "hydra.callbacks: Hydra would build these before",
        ),
        (
            "data=synthetic_tiny data.synthetic.classes=[0,7]",
            "data.synthetic.classes.0: Input should be a valid string",
        ),
        ("optimizer._partial_=false", "optimizer: must say _partial_: true"),
        ("-m seed=1,2 sed=3", "sed: unknown key; did you mean 'seed'?"),
    ],
)
def test_a_bad_setting_is_named_by_its_key_path(
    run_app: Any, data_root: Path, override: str, expected: str
) -> None:
    code, message = run_app("data=jsonl", f"data.root={data_root}", *override.split())
    assert code == 2
    assert "Traceback" not in message
    assert expected in message
    assert not (data_root.parent / "runs").exists()


def test_a_data_root_that_was_not_given_is_asked_for(run_app: Any, tmp_path: Path) -> None:
    code, message = run_app("data=jsonl")
    assert code == 2
    assert "data.root has no value; give it one on the command line: data.root=VALUE" in message
    assert list(tmp_path.iterdir()) == []


def test_a_gpu_that_is_not_there_is_said_before_the_data_is_read(
    run_app: Any, tmp_path: Path
) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    code, message = run_app("trainer=gpu")
    assert code == 2
    assert "trainer: " in message
    assert "gpu" in message.lower()
    assert list(tmp_path.iterdir()) == []


def test_a_loss_that_is_not_finite_ends_the_run_with_advice(run_app: Any, data_root: Path) -> None:
    settings = [
        "optimizer=sgd",
        "optimizer.lr=1e30",
        "preprocessing.size=[40,40]",
        "trainer.log_every_n_steps=1",
    ]
    code, message = run_app("data=jsonl", f"data.root={data_root}", "+data.batch_size=2", *settings)
    assert code == 2
    assert "NotFiniteLossError: the training loss became" in message
    assert "lower optimizer.lr, clip gradients with ++trainer.gradient_clip_val=1.0" in message
    assert "Traceback" not in message
    (run,) = (data_root.parent / "runs").iterdir()
    assert not (run / "summary.json").exists(), "it is not finished"


def test_a_damaged_checkpoint_to_resume_from_is_named(run_app: Any, data_root: Path) -> None:
    from cls_train.run_folder import RunFolder

    overrides = [
        "data=jsonl",
        f"data.root={data_root}",
        "run.name=one",
        f"run.root={data_root.parent / 'runs'}",
    ]
    run_app(
        *overrides, "trainer.max_epochs=1", "preprocessing.size=[32,32]", "stages.evaluate=false"
    )
    folder = RunFolder(data_root.parent / "runs/one")
    folder.summary.unlink()
    folder.last.write_bytes(folder.last.read_bytes()[:1000])
    code, message = run_app(
        *overrides, "trainer.max_epochs=1", "preprocessing.size=[32,32]", "stages.evaluate=false"
    )
    assert code == 2
    assert "last.ckpt: its bytes are not those that were written" in message
    assert "Traceback" not in message


@pytest.mark.parametrize(
    "setting", ["+model.init_from={run}", "distillation=checkpoint distillation.run={run}"]
)
def test_a_flipped_byte_in_what_an_earlier_run_learnt_is_named(
    run_app: Any, data_root: Path, make_run: Any, setting: str
) -> None:
    run = make_run()
    best = run / "checkpoints/best.ckpt"
    content = bytearray(best.read_bytes())
    content[len(content) // 2] ^= 1  # amid the weights, where torch.load notices nothing
    best.write_bytes(content)
    code, message = run_app(
        "data=jsonl", f"data.root={data_root}", *setting.format(run=run).split()
    )
    assert code == 2
    assert f"RunError: {best}: its bytes are not those that were written" in message
    assert "Traceback" not in message
    assert not (data_root.parent / "runs").exists()
