import cls_data


def test_the_package_offers_these_names_and_no_others() -> None:
    assert set(cls_data.__all__) == {
        "Augmentation",
        "BatchPlan",
        "ClassificationBatch",
        "ClassificationDataModule",
        "DataError",
        "DataModuleConfig",
        "DatasetStatistics",
        "EpochSampler",
        "EvaluationOutputs",
        "GathersOutputs",
        "ImagePreprocessing",
        "ImageStore",
        "LightAugmentation",
        "Predictions",
        "Record",
        "SequentialSampler",
        "SyntheticNumbers",
        "balancing_weights",
        "class_to_idx",
        "read_split",
        "write_atomically",
    }
    assert all(hasattr(cls_data, name) for name in cls_data.__all__)
