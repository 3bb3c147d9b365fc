from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback

from cls_callbacks import EMA, AtomicCheckpointIO, BestAndLastCheckpoint


def cloned(state: Any) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in state.items()}


class Recorder(Callback):
    """Record the raw weights after every step."""

    def __init__(self) -> None:
        self.raw: list[dict[str, torch.Tensor]] = []

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *args: Any) -> None:
        self.raw.append(cloned(pl_module.state_dict()))


class ValidationWeights(Callback):
    """Record the weights that validation uses."""

    def __init__(self) -> None:
        self.seen: list[dict[str, torch.Tensor]] = []

    def on_validation_batch_start(self, trainer: Any, pl_module: Any, *args: Any) -> None:
        self.seen.append(cloned(pl_module.state_dict()))


def averaged(
    start: dict[str, torch.Tensor],
    raw: list[dict[str, torch.Tensor]],
    decay: float,
    without: tuple[int, ...] = (),
) -> dict[str, torch.Tensor]:
    """Average one tensor and one step at a time, ignoring the weights of the steps `without`."""
    average = cloned(start)
    share = 1.0
    for steps, weights in enumerate(raw):
        share *= min(decay, (1 + steps) / (10 + steps))
        if steps in without:
            continue
        for name, tensor in weights.items():
            if tensor.is_floating_point():
                average[name] = share * average[name] + (1 - share) * tensor
            else:
                average[name] = tensor
        share = 1.0
    return average


def close(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return all(torch.allclose(one[name], other[name], atol=1e-5) for name in one)


def test_ema_validates_the_average_and_trains_the_raw_weights(
    module: Any, data: Any, make_trainer: Any
) -> None:
    start, recorder, validation = cloned(module.state_dict()), Recorder(), ValidationWeights()
    make_trainer(recorder, EMA(decay=0.5, every=1), validation, max_epochs=2).fit(
        module, datamodule=data
    )
    assert len(recorder.raw) == 6
    assert close(validation.seen[0], averaged(start, recorder.raw[:3], 0.5))
    assert close(validation.seen[1], averaged(start, recorder.raw, 0.5))
    assert close(cloned(module.state_dict()), recorder.raw[-1])


def test_checkpoint_holds_average_and_raw_weights(
    module: Any, data: Any, make_trainer: Any, tmp_path: Path
) -> None:
    start, recorder = cloned(module.state_dict()), Recorder()
    make_trainer(recorder, EMA(every=1), BestAndLastCheckpoint(), max_epochs=2).fit(
        module, datamodule=data
    )
    saved = torch.load(tmp_path / "run/checkpoints/last.ckpt", weights_only=True)
    assert close(saved["state_dict"], averaged(start, recorder.raw, 0.998))
    assert close(saved["raw_state_dict"], recorder.raw[-1])
    assert saved["scored"]["weights"] == "ema"


@pytest.mark.parametrize(("every", "without"), [(2, (0, 3)), (8, (0, 1, 3, 4))])
def test_ema_skips_steps_between_updates_but_updates_before_validation(
    module: Any, data: Any, make_trainer: Any, every: int, without: tuple[int, ...]
) -> None:
    start, recorder, validation = cloned(module.state_dict()), Recorder(), ValidationWeights()
    make_trainer(recorder, EMA(decay=0.5, every=every), validation, max_epochs=2).fit(
        module, datamodule=data
    )
    assert len(recorder.raw) == 6
    assert close(validation.seen[0], averaged(start, recorder.raw[:3], 0.5, without))
    assert close(validation.seen[1], averaged(start, recorder.raw, 0.5, without))


def test_run_saved_between_two_updates_resumes_exactly(
    new_module: Any, data: Any, make_trainer: Any, tmp_path: Path
) -> None:
    class SaveInEpoch(Callback):
        def on_train_batch_end(self, trainer: Any, *args: Any) -> None:
            if trainer.global_step in (1, 10):
                trainer.save_checkpoint(tmp_path / f"step{trainer.global_step}.ckpt")

    def run(folder: str, *callbacks: Callback, start: Path | None = None) -> dict[str, Any]:
        path = tmp_path / folder
        trainer = make_trainer(
            EMA(), BestAndLastCheckpoint(), *callbacks, max_epochs=5, default_root_dir=path
        )
        trainer.fit(new_module(), datamodule=data, ckpt_path=start, weights_only=True)
        saved: dict[str, Any] = torch.load(path / "checkpoints/last.ckpt", weights_only=True)
        return saved

    whole = run("whole", SaveInEpoch())
    for step in (1, 10):
        resumed = run(f"from{step}", start=tmp_path / f"step{step}.ckpt")
        for key in ("state_dict", "raw_state_dict"):
            for name, tensor in whole[key].items():
                assert torch.equal(tensor, resumed[key][name]), (step, key, name)


def test_checkpoint_saved_between_two_updates_can_be_validated_and_tested(
    module: Any, new_module: Any, data: Any, make_trainer: Any, tmp_path: Path
) -> None:
    class SaveInEpoch(Callback):
        def on_train_batch_end(self, trainer: Any, *args: Any) -> None:
            if trainer.global_step == 5:
                trainer.save_checkpoint(tmp_path / "step5.ckpt")

    make_trainer(EMA(), SaveInEpoch()).fit(module, datamodule=data)
    path = str(tmp_path / "step5.ckpt")
    for evaluate in ("validate", "test"):
        trainer = make_trainer(EMA())
        getattr(trainer, evaluate)(
            fresh := new_module(), datamodule=data, ckpt_path=path, weights_only=True, verbose=False
        )
        assert close(cloned(fresh.state_dict()), torch.load(path, weights_only=True)["state_dict"])


def test_test_after_interrupted_fit_uses_the_average_of_all_steps(
    module: Any, data: Any, make_trainer: Any
) -> None:
    class Fail(Callback):
        def on_train_batch_end(self, trainer: Any, *args: Any) -> None:
            if trainer.global_step == 2:
                raise RuntimeError("in mid-epoch")

    class TestWeights(Callback):
        def on_test_batch_start(self, trainer: Any, pl_module: Any, *args: Any) -> None:
            self.seen = cloned(pl_module.state_dict())

    start, recorder, seen = cloned(module.state_dict()), Recorder(), TestWeights()
    trainer = make_trainer(recorder, EMA(), Fail(), seen)
    with pytest.raises(RuntimeError, match="in mid-epoch"):
        trainer.fit(module, datamodule=data)
    trainer.test(module, datamodule=data, verbose=False)
    assert close(seen.seen, averaged(start, recorder.raw, 0.998, without=(0,)))


def test_decay_is_constant_without_warmup_and_increases_with_it() -> None:
    ema = EMA(decay=0.9, warmup=False)
    assert ema.effective_decay == 0.9
    warming = EMA(decay=0.9)
    decays = []
    for warming.steps in range(200):
        decays.append(warming.effective_decay)
    assert decays[0] == 0.1
    assert decays == sorted(decays)
    assert decays[-1] == 0.9


def test_ema_logs_effective_decay(module: Any, data: Any, make_trainer: Any) -> None:
    trainer = make_trainer(EMA(), max_epochs=2)
    trainer.fit(module, datamodule=data)
    assert float(trainer.callback_metrics["ema_decay"]) == pytest.approx(7 / 16)


def test_exception_during_validation_keeps_average_and_raw_weights_apart(
    module: Any, data: Any, make_trainer: Any, tmp_path: Path
) -> None:
    class Fail(Callback):
        def on_validation_batch_end(self, trainer: Any, pl_module: Any, *args: Any) -> None:
            trainer.save_checkpoint(tmp_path / "during.ckpt")
            raise RuntimeError("in mid-validation")

    start, recorder = cloned(module.state_dict()), Recorder()
    trainer = make_trainer(recorder, EMA(every=1), Fail())
    with pytest.raises(RuntimeError, match="in mid-validation"):
        trainer.fit(module, datamodule=data)
    assert close(cloned(module.state_dict()), recorder.raw[-1])
    trainer.save_checkpoint(tmp_path / "after.ckpt")
    for name in ("during.ckpt", "after.ckpt"):
        saved = torch.load(tmp_path / name, weights_only=True)
        assert close(saved["state_dict"], averaged(start, recorder.raw, 0.998))
        assert close(saved["raw_state_dict"], recorder.raw[-1])


def test_test_after_fit_uses_the_average_or_the_loaded_checkpoint(
    module: Any, data: Any, make_trainer: Any, tmp_path: Path
) -> None:
    class TestWeights(Callback):
        def on_test_batch_start(self, trainer: Any, pl_module: Any, *args: Any) -> None:
            self.seen = cloned(pl_module.state_dict())

    seen = TestWeights()
    trainer = make_trainer(EMA(), BestAndLastCheckpoint(monitor="valid_loss", mode="min"), seen)
    trainer.fit(module, datamodule=data)
    best, last = (
        torch.load(tmp_path / f"run/checkpoints/{name}.ckpt", weights_only=True)["state_dict"]
        for name in ("best", "last")
    )
    trainer.test(module, datamodule=data, verbose=False)
    assert close(seen.seen, last)
    trainer.test(
        module,
        datamodule=data,
        ckpt_path=str(tmp_path / "run/checkpoints/best.ckpt"),
        weights_only=True,
        verbose=False,
    )
    assert close(seen.seen, best)


def test_save_after_testing_another_checkpoint_saves_its_weights(
    module: Any, data: Any, make_trainer: Any, tmp_path: Path
) -> None:
    trainer = make_trainer(EMA(), BestAndLastCheckpoint())
    trainer.fit(module, datamodule=data)
    best = str(tmp_path / "run/checkpoints/best.ckpt")
    trainer.test(module, datamodule=data, ckpt_path=best, weights_only=True, verbose=False)
    trainer.save_checkpoint(tmp_path / "after.ckpt")
    saved, expected = (
        torch.load(path, weights_only=True)["state_dict"]
        for path in (tmp_path / "after.ckpt", best)
    )
    assert close(saved, expected)
    assert saved.keys() == expected.keys()


def test_test_after_fit_uses_the_average_when_the_module_was_moved(
    module: Any, data: Any, make_trainer: Any, tmp_path: Path
) -> None:
    # After a fit on a GPU, Lightning moves the module to the CPU, which replaces its tensors.
    trainer = make_trainer(EMA(), BestAndLastCheckpoint())
    trainer.fit(module, datamodule=data)
    last = torch.load(tmp_path / "run/checkpoints/last.ckpt", weights_only=True)["state_dict"]
    for parameter in module.parameters():
        parameter.data = parameter.data.clone()
    trainer.test(module, datamodule=data, verbose=False)
    tested = module.outputs
    fresh = type(module)()
    fresh.load_state_dict(last)
    make_trainer().test(fresh, datamodule=data, verbose=False)
    assert torch.allclose(tested.logits, fresh.outputs.logits, atol=1e-5)


def test_second_fit_starts_a_new_average(new_module: Any, data: Any, make_trainer: Any) -> None:
    ema = EMA()
    for _ in range(2):
        make_trainer(ema, max_epochs=1).fit(new_module(), datamodule=data)
        assert ema.steps == 3


def test_resumed_run_has_the_weights_of_an_uninterrupted_run(
    new_module: Any, data: Any, make_trainer: Any, tmp_path: Path
) -> None:
    def run(folder: str, epochs: list[int]) -> dict[str, Any]:
        last = tmp_path / folder / "checkpoints/last.ckpt"
        for count in epochs:
            trainer = make_trainer(
                EMA(),
                BestAndLastCheckpoint(),
                max_epochs=count,
                default_root_dir=tmp_path / folder,
                plugins=[AtomicCheckpointIO()],
            )
            trainer.fit(
                new_module(),
                datamodule=data,
                ckpt_path=last if last.exists() else None,
                weights_only=True,
            )
        saved: dict[str, Any] = torch.load(last, weights_only=True)
        return saved

    whole, resumed = run("whole", [5]), run("resumed", [2, 3, 5])
    for key in ("state_dict", "raw_state_dict"):
        for name, tensor in whole[key].items():
            assert torch.equal(tensor, resumed[key][name]), (key, name)
    assert whole["global_step"] == resumed["global_step"] == 15
    assert whole["scored"] == resumed["scored"]


def test_ema_averages_once_per_step_with_gradient_accumulation(
    module: Any, data: Any, make_trainer: Any
) -> None:
    ema = EMA()
    make_trainer(ema, max_epochs=2, accumulate_grad_batches=3).fit(module, datamodule=data)
    assert ema.steps == 2


def test_ema_logs_a_decay_that_is_never_reached(
    module: Any, data: Any, make_trainer: Any, log_messages: list[str]
) -> None:
    make_trainer(EMA(decay=0.999), max_epochs=1).fit(module, datamodule=data)
    assert any("EMA decay 0.999 is not reached in 3 steps" in line for line in log_messages)


@pytest.mark.parametrize("decay", [-0.1, 1.0])
def test_ema_rejects_decay_out_of_range(decay: float) -> None:
    with pytest.raises(ValueError, match=r"decay must be in \[0, 1\), got"):
        EMA(decay=decay)


def test_ema_rejects_every_zero_steps() -> None:
    with pytest.raises(ValueError, match="every must be at least 1 step, got 0"):
        EMA(every=0)
