import torch
from torch.nn import functional

from cls_models.metrics import classification_metrics


def test_top5_counts_for_itself_whatever_the_first_batch_was() -> None:
    metrics = classification_metrics(8)
    right = torch.eye(8)
    metrics.update(right, torch.arange(8))
    # The label is second behind its neighbour.
    metrics.update(right + 2 * right.roll(1, dims=1), torch.arange(8))
    values = metrics.compute()
    assert float(values["top1"]) == 0.5
    assert float(values["top5"]) == 1.0


def test_metrics_that_share_what_they_count_are_those_of_each_alone() -> None:
    metrics, generator = classification_metrics(6), torch.Generator().manual_seed(0)
    batches = [
        (torch.randn(9, 6, generator=generator), torch.randint(6, (9,), generator=generator))
        for _ in range(3)
    ]
    for logits, labels in batches:
        metrics.update(logits, labels)
    together, labels = (torch.cat(parts) for parts in zip(*batches, strict=True))
    of_label, answered = (functional.one_hot(each, 6) for each in (labels, together.argmax(dim=1)))
    hits, rows, answers = (each.sum(dim=0) for each in (of_label * answered, of_label, answered))
    values = metrics.compute()
    assert torch.allclose(values["class_accuracy"], hits / rows)
    assert torch.allclose(values["macro_f1"], (2 * hits / (rows + answers)).mean())
    assert torch.allclose(
        values["top5"], (together.topk(5).indices == labels[:, None]).any(dim=1).float().mean()
    )
