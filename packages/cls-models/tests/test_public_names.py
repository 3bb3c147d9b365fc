import cls_models


def test_the_package_offers_these_names_and_no_others() -> None:
    assert set(cls_models.__all__) == {
        "BACKBONES",
        "VALIDATION_METRICS",
        "BackboneError",
        "Classifier",
        "build_backbone",
        "classification_metrics",
        "parameter_groups",
        "warmup_cosine",
    }
    assert all(hasattr(cls_models, name) for name in cls_models.__all__)
