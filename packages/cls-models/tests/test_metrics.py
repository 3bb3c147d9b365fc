import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional
from torchmetrics.classification import MulticlassAccuracy, MulticlassF1Score

from cls_models.metrics import build_classification_metrics


def test_top5_is_independent_of_the_first_batch() -> None:
    metrics = build_classification_metrics(8)
    logits = torch.eye(8)
    metrics.update(logits, torch.arange(8))
    # The label has the second largest logit.
    metrics.update(logits + 2 * logits.roll(1, dims=1), torch.arange(8))
    values = metrics.compute()
    assert float(values["top1"]) == 0.5
    assert float(values["top5"]) == 1.0


def test_metrics_with_shared_state_equal_those_computed_separately() -> None:
    metrics, generator = build_classification_metrics(6), torch.Generator().manual_seed(0)
    batches = [
        (torch.randn(9, 6, generator=generator), torch.randint(6, (9,), generator=generator))
        for _ in range(3)
    ]
    for logits, labels in batches:
        metrics.update(logits, labels)
    logits, labels = (torch.cat(column) for column in zip(*batches, strict=True))
    is_label = functional.one_hot(labels, 6)
    is_predicted = functional.one_hot(logits.argmax(dim=1), 6)
    hits = (is_label * is_predicted).sum(dim=0)
    rows = is_label.sum(dim=0)
    predictions = is_predicted.sum(dim=0)
    is_in_top5 = (logits.topk(5).indices == labels[:, None]).any(dim=1)
    values = metrics.compute()
    assert torch.allclose(values["class_accuracy"], hits / rows)
    assert torch.allclose(values["macro_f1"], (2 * hits / (rows + predictions)).mean())
    assert torch.allclose(values["top5"], is_in_top5.float().mean())


@given(
    num_classes=st.integers(2, 12),
    rows=st.integers(1, 40),
    levels=st.integers(1, 5),
    seed=st.integers(0, 2**32),
)
def test_counts_are_those_of_torchmetrics(
    num_classes: int, rows: int, levels: int, seed: int
) -> None:
    """With few levels, many logits are equal."""
    generator = torch.Generator().manual_seed(seed)
    metrics = build_classification_metrics(num_classes)
    k = min(5, num_classes)
    references = {
        "top5": MulticlassAccuracy(num_classes, average="micro", top_k=k),
        "macro_f1": MulticlassF1Score(num_classes, average="macro"),
        "class_accuracy": MulticlassAccuracy(num_classes, average="none"),
    }
    for _ in range(2):
        logits = torch.randint(levels, (rows, num_classes), generator=generator).float()
        labels = torch.randint(num_classes, (rows,), generator=generator)
        metrics.update(logits, labels)
        for reference in references.values():
            reference.update(logits, labels)
    values = metrics.compute()
    for name, reference in references.items():
        assert torch.equal(values[name], reference.compute()), name
        for key, expected in reference.metric_state.items():
            assert torch.equal(metrics[name].metric_state[key], expected), (name, key)


def test_a_batch_of_100_000_classes_takes_little_memory() -> None:
    """A confusion matrix would take 80 GB."""
    metrics = build_classification_metrics(100_000)
    metrics.update(torch.zeros(2, 100_000), torch.tensor([0, 99_999]))
    assert float(metrics.compute()["top1"]) == 0.5
