"""A14: a resumed run compares what weights depend on, and takes the rest from the new command."""

from typing import Any

import pytest

from cls_train.run_folder.settings_diff import compare_settings


@pytest.mark.parametrize(
    "override",
    [
        "acceleration=off",
        "data.root=/elsewhere",
        "++data.quarantine=/elsewhere/rows.jsonl",
        "++data.num_workers=4",
        "++data.persistent_workers=false",
        "++data.eval_batch_size=4",
        "++data.decode_workers=1",
        "++data.synthetic.train=300",
        "++data.store=/elsewhere",
        "++data.shard_cache=/elsewhere",
        "++data.shard_cache_gigabytes=7",
        "data.gate.rare_classes=ignore",
        "logger=csv",
        "run.root=/elsewhere",
        "stages.export=false",
        "++trainer.max_time=00:01:00:00",
        "trainer.log_every_n_steps=3",
        "trainer.enable_model_summary=true",
        "++trainer.enable_progress_bar=false",
        "++trainer.detect_anomaly=true",
        "++trainer.num_sanity_val_steps=2",
        "trainer.accelerator=auto",
        "callbacks.grad_cam=null",
        "callbacks=lr_finder",
        "++callbacks.training_warnings.patience=5",
        "++callbacks.best_and_last.keep_epochs=3",
        "++callbacks.best_and_last.every_n_steps=3",
        "callbacks.best_and_last.every_minutes=3",
        "++callbacks.lr_monitor._target_=lightning.pytorch.callbacks.LearningRateMonitor",
        # The default of the class, written out.
        "++data.sampler=shuffle",
        "++trainer.accumulate_grad_batches=1",
        "++callbacks.ema.warmup=true",
        "++scheduler.warmup=0.1",
    ],
)
def test_settings_that_do_not_change_weights_may_differ(composed: Any, override: str) -> None:
    override = override.replace("++trainer.num", "++trainer.num")
    changing, _ = compare_settings(composed(), composed(override))
    assert changing == []


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("seed=2", "seed: 1 → 2"),
        (
            "monitor.metric=valid_loss monitor.mode=min",
            "monitor.metric: 'valid_top1' → 'valid_loss'",
        ),
        ("++data.shards=s3://bucket/shards", "data.shards: None → 's3://bucket/shards'"),
        ("++data.shard_window=8", "data.shard_window: 64 → 8"),
        ("++data.batch_size=8", "data.batch_size: 64 → 8"),
        ("++data.sampler=weighted", "data.sampler: 'shuffle' → 'weighted'"),
        ("++data.class_weights=balanced", "data.class_weights: None → 'balanced'"),
        ("data.folds=5", "data.folds: None → 5"),
        ("++data.growing_sizes=[{until:0.5,size:[24,24]}]", "data.growing_sizes: "),
        ("preprocessing.size=[40,40]", "preprocessing.size: [64, 64] → [40, 40]"),
        ("augmentation=none", "augmentation: cls_data.LightAugmentation → None"),
        ("mixing=mixup", "mixing: None → cls_data.MixupCutmix"),
        ("model=resnet34", "model.name: 'resnet18' → 'resnet34'"),
        ("model.weights=DEFAULT", "model.weights: None → 'DEFAULT'"),
        ("++model.init_from=/runs/first", "model.init_from: None → '/runs/first'"),
        ("transfer=linear_probe", "transfer: None → cls_models.Transfer"),
        ("loss=focal", "loss._target_: 'torch.nn.CrossEntropyLoss' → 'cls_models.FocalLoss'"),
        ("optimizer.lr=0.5", "optimizer.lr: 0.001 → 0.5"),
        ("scheduler=none", "scheduler: cls_models.warmup_cosine → None"),
        ("++scheduler.final=0.5", "scheduler.final: 0.01 → 0.5"),
        ("++trainer.precision=bf16-mixed", "trainer.precision: None → 'bf16-mixed'"),
        ("++trainer.gradient_clip_val=1.0", "trainer.gradient_clip_val: None → 1.0"),
        ("++trainer.accumulate_grad_batches=2", "trainer.accumulate_grad_batches: 1 → 2"),
        ("++trainer.limit_val_batches=2", "trainer.limit_val_batches: None → 2"),
        ("callbacks.ema=null", "callbacks.ema: cls_callbacks.EMA → None"),
        ("++callbacks.ema.decay=0.5", "callbacks.ema.decay: 0.998 → 0.5"),
        ("trainer.max_epochs=5", "trainer.max_epochs: 7 → 5 (a run can only be extended)"),
        ("trainer.max_epochs=9", "trainer.max_epochs: 7 → 9 (the schedule warmup_cosine depends"),
    ],
)
def test_settings_that_change_weights_are_listed_with_both_values(
    composed: Any, override: str, line: str
) -> None:
    changing, _ = compare_settings(composed(), composed(*override.split(" ")))
    assert any(str(difference).startswith(line) for difference in changing), changing


@pytest.mark.parametrize(
    ("section", "name", "node", "line"),
    [
        ("callbacks", "mine", {"_target_": "mine.Mixer"}, "callbacks.mine: not set → mine.Mixer"),
        ("callbacks", "ema", None, "callbacks.ema: cls_callbacks.EMA → None"),
        ("callbacks", "best_and_last", {"_target_": "mine.Best"}, "callbacks.best_and_last"),
        ("distillation", None, {"_target_": "mine.Loss"}, "distillation: None → mine.Loss"),
    ],
)
def test_classes_of_the_user_are_taken_to_change_weights(
    composed: Any, section: str, name: str | None, node: Any, line: str
) -> None:
    before = composed()
    changed = node if name is None else {**getattr(before, section), name: node}
    changing, _ = compare_settings(before, before.model_copy(update={section: changed}))
    assert str(changing[0]).startswith(line)


def test_a_harmless_change_is_listed_with_both_values(composed: Any) -> None:
    _, harmless = compare_settings(composed(), composed("++data.num_workers=4", "logger=csv"))
    assert [str(difference) for difference in harmless] == [
        "data.num_workers: 0 → 4",
        "logger.tensorboard: lightning.pytorch.loggers.TensorBoardLogger → not set",
    ]


@pytest.mark.parametrize(
    "scheduler",
    [
        "scheduler=none",
        "scheduler=plateau",
        "scheduler={_target_: torch.optim.lr_scheduler.StepLR, step_size: 2}",
    ],
)
def test_a_run_whose_schedule_ignores_the_number_of_epochs_can_be_extended(
    composed: Any, scheduler: str
) -> None:
    extended = composed(scheduler, "trainer.max_epochs=9")
    changing, harmless = compare_settings(composed(scheduler), extended)
    assert changing == []
    assert [difference.key for difference in harmless] == ["trainer.max_epochs"]

    growing = "++data.growing_sizes=[{until: 0.5, size: [24, 24]}]"
    extended = composed(scheduler, growing, "trainer.max_epochs=9")
    changing, _ = compare_settings(composed(scheduler, growing), extended)
    assert "data.growing_sizes depends on it" in str(changing[0])
