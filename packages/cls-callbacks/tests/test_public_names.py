import cls_callbacks


def test_the_package_offers_these_names_and_no_others() -> None:
    assert set(cls_callbacks.__all__) == {
        "EMA",
        "AtomicCheckpointIO",
        "AugmentedSamples",
        "BatchSizeSuggestion",
        "BestAndLast",
        "CheckpointNotSavedError",
        "ConfusionMatrix",
        "DamagedCheckpointError",
        "DatasetStatisticsCallback",
        "EarlyWarnings",
        "EpochLog",
        "GradCam",
        "GradientNorm",
        "Interrupted",
        "LearningRateSuggestion",
        "ModelInfo",
        "PredictionsWriter",
        "ProgressBar",
        "SamplePredictions",
        "SamplerDistribution",
        "SaveOnSignal",
        "ScoredWeights",
        "Throughput",
        "TrainingHistory",
        "log_picture",
        "verify_checkpoint",
    }
    assert all(hasattr(cls_callbacks, name) for name in cls_callbacks.__all__)
