import torch
from torch.nn import functional

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
