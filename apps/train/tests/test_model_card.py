"""The figures of an evaluation reach the model card of the bundle."""

from cls_export.bundle.model_card import CardFigure
from cls_report import Estimate, EvaluationScores
from cls_train.stages.evaluate import list_card_figures

UNKNOWN = Estimate(value=None)


def score(images: int, top1: Estimate, macro_f1: Estimate = UNKNOWN) -> EvaluationScores:
    return EvaluationScores(
        images=images,
        right=0,
        groups=None,
        top1=top1,
        top5=UNKNOWN,
        macro_precision=UNKNOWN,
        macro_recall=UNKNOWN,
        macro_f1=macro_f1,
        auroc=UNKNOWN,
        loss=UNKNOWN,
        calibration_error=UNKNOWN,
        by_class=(),
    )


def test_card_figures_are_the_defined_scores_with_their_intervals() -> None:
    scores = {
        "valid": score(364, Estimate(value=0.89, low=0.85, high=0.92)),
        "test": score(100, Estimate(value=0.8, low=0.7, high=0.9), Estimate(value=0.75)),
    }
    assert list_card_figures(scores) == [
        CardFigure("test", "top-1 accuracy", 0.8, 0.7, 0.9, 100),
        CardFigure("test", "macro F1", 0.75, None, None, 100),
        CardFigure("valid", "top-1 accuracy", 0.89, 0.85, 0.92, 364),
    ]
