from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback
from loguru import logger

from cls_callbacks import EMA, AtomicCheckpointIO, BestAndLastCheckpoint


def copied(state: Any) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in state.items()}


class Recorder(Callback):
    """Keeps the raw weights after every step."""

    def __init__(self) -> None:
        self.raw: list[dict[str, torch.Tensor]] = []

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *args: Any) -> None:
        self.raw.append(copied(pl_module.state_dict()))


class ValidationWeights(Callback):
    """Keeps the weights that validation runs with."""

    def __init__(self) -> None:
        self.seen: list[dict[str, torch.Tensor]] = []

    def on_validation_batch_start(self, trainer: Any, pl_module: Any, *args: Any) -> None:
        self.seen.append(copied(pl_module.state_dict()))


def averaged(
    start: dict[str, torch.Tensor],
    raw: list[dict[str, torch.Tensor]],
    decay: float,
    without: tuple[int, ...] = (),
) -> dict[str, torch.Tensor]:
    """The definition, one tensor and one step at a time; the weights of the steps `without` are not looked at."""
    average = copied(start)
    kept = 1.0
    for steps, weights in enumerate(raw):
        kept *= min(decay, (1 + steps) / (10 + steps))
        if steps not in without:
            for name, tensor in weights.items():
                average[name] = (
                    kept * average[name] + (1 - kept) * tensor
                    if tensor.is_floating_point()
                    else tensor
                )
            kept = 1.0
    return average


def close(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return all(torch.allclose(one[name], other[name], atol=1e-5) for name in one)


def test_the_average_is_validated_and_the_raw_weights_train_on(
    module: Any, data: Any, make_trainer: Any
) -> None:
    start, recorder, validation = copied(module.state_dict()), Recorder(), ValidationWeights()
    make_trainer(recorder, EMA(decay=0.5, every=1), validation, max_epochs=2).fit(
        module, datamodule=data
    )
    assert len(recorder.raw) == 6
    assert close(validation.seen[0], averaged(start, recorder.raw[:3], 0.5))
    assert close(validation.seen[1], averaged(start, recorder.raw, 0.5))
    assert close(copied(module.state_dict()), recorder.raw[-1])


def test_a_checkpoint_holds_the_average_and_the_raw_weights_ride_along(
    module: Any, data: Any, make_trainer: Any, tmp_path: Path
) -> None:
    start, recorder = copied(module.state_dict()), Recorder()
    make_trainer(recorder, EMA(every=1), BestAndLastCheckpoint(), max_epochs=2).fit(
        module, datamodule=data
    )
    saved = torch.load(tmp_path / "run/checkpoints/last.ckpt", weights_only=True)
    assert close(saved["state_dict"], averaged(start, recorder.raw, 0.998))
    assert close(saved["raw_state_dict"], recorder.raw[-1])
    assert saved["scored"]["weights"] == "ema"


@pytest.mark.parametrize(("every", "without"), [(2, (0, 3)), (8, (0, 1, 3, 4))])
def test_steps_between_two_updates_are_left_out_but_none_before_a_validation(
    module: Any, data: Any, make_trainer: Any, every: int, without: tuple[int, ...]
) -> None:
    start, recorder, validation = copied(module.state_dict()), Recorder(), ValidationWeights()
    make_trainer(recorder, EMA(decay=0.5, every=every), validation, max_epochs=2).fit(
        module, datamodule=data
    )
    assert len(recorder.raw) == 6
    assert close(validation.seen[0], averaged(start, recorder.raw[:3], 0.5, without))
    assert close(validation.seen[1], averaged(start, recorder.raw, 0.5, without))


def test_a_run_saved_between_two_updates_goes_on_as_if_nothing_had_been(
    new_module: Any, data: Any, make_trainer: Any, tmp_path: Path
) -> None:
    class SaveWithin(Callback):
        def on_train_batch_end(self, trainer: Any, *args: Any) -> None:
            if trainer.global_step in (1, 10):
                trainer.save_checkpoint(tmp_path / f"within{trainer.global_step}.ckpt")

    def run(folder: str, *callbacks: Callback, start: Path | None = None) -> dict[str, Any]:
        place = tmp_path / folder
        trainer = make_trainer(
            EMA(), BestAndLastCheckpoint(), *callbacks, max_epochs=5, default_root_dir=place
        )
        trainer.fit(new_module(), datamodule=data, ckpt_path=start, weights_only=True)
        saved: dict[str, Any] = torch.load(place / "checkpoints/last.ckpt", weights_only=True)
        return saved

    whole = run("whole", SaveWithin())
    for step in (1, 10):
        parts = run(f"from{step}", start=tmp_path / f"within{step}.ckpt")
        for key in ("state_dict", "raw_state_dict"):
            assert all(torch.equal(whole[key][name], parts[key][name]) for name in whole[key]), (
                step,
                key,
            )


def test_a_checkpoint_from_between_two_updates_can_be_validated_and_tested(
    module: Any, new_module: Any, data: Any, make_trainer: Any, tmp_path: Path
) -> None:
    class SaveWithin(Callback):
        def on_train_batch_end(self, trainer: Any, *args: Any) -> None:
            if trainer.global_step == 5:
                trainer.save_checkpoint(tmp_path / "within.ckpt")

    make_trainer(EMA(), SaveWithin()).fit(module, datamodule=data)
    path = str(tmp_path / "within.ckpt")
    for evaluate in ("validate", "test"):
        trainer = make_trainer(EMA())
        getattr(trainer, evaluate)(
            fresh := new_module(), datamodule=data, ckpt_path=path, weights_only=True, verbose=False
        )
        assert close(copied(fresh.state_dict()), torch.load(path, weights_only=True)["state_dict"])


def test_testing_after_a_fit_that_was_interrupted_uses_the_average_of_all_steps(
    module: Any, data: Any, make_trainer: Any
) -> None:
    class Fail(Callback):
        def on_train_batch_end(self, trainer: Any, *args: Any) -> None:
            if trainer.global_step == 2:
                raise RuntimeError("in mid-epoch")

    class TestWeights(Callback):
        def on_test_batch_start(self, trainer: Any, pl_module: Any, *args: Any) -> None:
            self.seen = copied(pl_module.state_dict())

    start, recorder, seen = copied(module.state_dict()), Recorder(), TestWeights()
    trainer = make_trainer(recorder, EMA(), Fail(), seen)
    with pytest.raises(RuntimeError, match="in mid-epoch"):
        trainer.fit(module, datamodule=data)
    trainer.test(module, datamodule=data, verbose=False)
    assert close(seen.seen, averaged(start, recorder.raw, 0.998, without=(0,)))


def test_without_warm_up_the_decay_is_constant() -> None:
    ema = EMA(decay=0.9, warmup=False)
    assert ema.effective_decay == 0.9
    warming = EMA(decay=0.9)
    decays = []
    for warming.steps in range(200):
        decays.append(warming.effective_decay)
    assert decays[0] == 0.1
    assert decays == sorted(decays)
    assert decays[-1] == 0.9


def test_the_effective_decay_is_logged(module: Any, data: Any, make_trainer: Any) -> None:
    trainer = make_trainer(EMA(), max_epochs=2)
    trainer.fit(module, datamodule=data)
    assert float(trainer.callback_metrics["ema_decay"]) == pytest.approx(7 / 16)


def test_an_exception_in_mid_validation_leaves_the_roles_right(
    module: Any, data: Any, make_trainer: Any, tmp_path: Path
) -> None:
    class Fail(Callback):
        def on_validation_batch_end(self, trainer: Any, pl_module: Any, *args: Any) -> None:
            trainer.save_checkpoint(tmp_path / "during.ckpt")
            raise RuntimeError("in mid-validation")

    start, recorder = copied(module.state_dict()), Recorder()
    trainer = make_trainer(recorder, EMA(every=1), Fail())
    with pytest.raises(RuntimeError, match="in mid-validation"):
        trainer.fit(module, datamodule=data)
    assert close(copied(module.state_dict()), recorder.raw[-1])
    trainer.save_checkpoint(tmp_path / "after.ckpt")
    for name in ("during.ckpt", "after.ckpt"):
        saved = torch.load(tmp_path / name, weights_only=True)
        assert close(saved["state_dict"], averaged(start, recorder.raw, 0.998))
        assert close(saved["raw_state_dict"], recorder.raw[-1])


def test_testing_after_fit_uses_the_average_and_a_loaded_checkpoint_what_was_loaded(
    module: Any, data: Any, make_trainer: Any, tmp_path: Path
) -> None:
    class TestWeights(Callback):
        def on_test_batch_start(self, trainer: Any, pl_module: Any, *args: Any) -> None:
            self.seen = copied(pl_module.state_dict())

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


def test_saving_after_a_test_of_another_checkpoint_saves_what_the_module_holds(
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


def test_testing_after_fit_uses_the_average_though_the_module_was_moved_in_between(
    module: Any, data: Any, make_trainer: Any, tmp_path: Path
) -> None:
    """After a fit on a GPU, Lightning moves the module to the CPU and thereby replaces its tensors."""
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


def test_a_second_fit_starts_an_average_of_its_own(
    new_module: Any, data: Any, make_trainer: Any
) -> None:
    ema = EMA()
    for _ in range(2):
        make_trainer(ema, max_epochs=1).fit(new_module(), datamodule=data)
        assert ema.steps == 3


def test_resuming_gives_the_weights_of_an_uninterrupted_run(
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

    whole, resumed = run("whole", [5]), run("parts", [2, 3, 5])
    for key in ("state_dict", "raw_state_dict"):
        assert all(torch.equal(whole[key][name], resumed[key][name]) for name in whole[key]), key
    assert whole["global_step"] == resumed["global_step"] == 15
    assert whole["scored"] == resumed["scored"]


def test_gradient_accumulation_averages_once_a_step(
    module: Any, data: Any, make_trainer: Any
) -> None:
    ema = EMA()
    make_trainer(ema, max_epochs=2, accumulate_grad_batches=3).fit(module, datamodule=data)
    assert ema.steps == 2


def test_a_decay_that_is_never_reached_is_said(module: Any, data: Any, make_trainer: Any) -> None:
    lines: list[str] = []
    sink = logger.add(lines.append, format="{message}")
    make_trainer(EMA(decay=0.999), max_epochs=1).fit(module, datamodule=data)
    logger.remove(sink)
    assert any("EMA decay 0.999 is not reached in 3 steps" in line for line in lines)


@pytest.mark.parametrize("decay", [-0.1, 1.0])
def test_a_decay_out_of_range_is_refused(decay: float) -> None:
    with pytest.raises(ValueError, match="0 or more and below 1"):
        EMA(decay=decay)


def test_an_average_of_no_steps_is_refused() -> None:
    with pytest.raises(ValueError, match="every must be at least 1 step, got 0"):
        EMA(every=0)
