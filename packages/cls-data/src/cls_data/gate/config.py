"""What the gate looks for, and how much each finding weighs."""

from typing import Annotated, Literal, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from cls_data.gate.duplicates import LARGEST_DISTANCE

Policy = Literal["error", "warn", "off"]
# In YAML, an unquoted off is a boolean.
_Policy = Annotated[Policy, BeforeValidator(lambda value: "off" if value is False else value)]
Level = Annotated[float, Field(ge=0, le=255)]


class GateConfig(BaseModel):
    """A policy for each rule, then the rules' thresholds. `error` stops a run; `warn` is only said.

    Rows and images that nothing can be made of (malformed, missing, huge, beyond repair, of a label that train lacks)
    are refused by the reader and the store in any case, as soon as a run wants them.

    Attributes:
        schema_errors: rows of another shape than the schema's.
        image_files: rows whose image is missing, or lies outside the root.
        damaged_images: files that are no image, are cut short, empty, or hold damaged data.
        huge_images: headers that promise more than 50 million pixels, which nobody wants decoded.
        wrong_extensions: names that promise another format than the file holds.
        conflicting_labels: one image (same bytes, or same pixels) under several labels.
        duplicates_across_splits: one image in several splits.
        duplicates_within_split: one image several times in a split, under one label.
        near_duplicates_across_splits: images that look alike, in several splits.
        near_duplicates_within_split: images that look alike, within a split.
        groups_across_splits: a group (a game, a video) whose rows stand in several splits.
        unknown_labels: labels that train lacks.
        empty_labels: rows whose label is the empty text.
        absent_classes: classes of train that another split lacks.
        rare_classes: classes with fewer than `rare_class_under` rows in train.
        imbalance: the largest class of train has more than `imbalance_over` times the rows of the smallest.
        outlying_sizes: images far smaller or larger than the others, or with a side under `smallest_side`.
        outlying_aspects: images far narrower or wider than the others.
        dark_images: mean luma under `dark_under`.
        bright_images: mean luma over `bright_over`.
        blurred_images: variance of the Laplacian under `blurred_under`.
        rare_class_under: rows.
        imbalance_over: ratio.
        smallest_side: pixels.
        outlying_fences: how many interquartile ranges beyond the quartiles is far, on a logarithmic scale (Tukey, 1977,
            calls 3 far out); the range counts as at least a factor of 1.25, since many sets have one size.
        dark_under: levels of 0-255.
        bright_over: levels of 0-255.
        blurred_under: levels squared.
        near_duplicate_bits: of 64, by which the difference hashes of two images that look alike may differ.
        near_duplicate_levels: of 0-255, by which their 12x12 thumbnails may differ in the mean.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_errors: _Policy = "error"
    image_files: _Policy = "error"
    damaged_images: _Policy = "error"
    huge_images: _Policy = "error"
    wrong_extensions: _Policy = "warn"
    conflicting_labels: _Policy = "error"
    duplicates_across_splits: _Policy = "error"
    duplicates_within_split: _Policy = "warn"
    near_duplicates_across_splits: _Policy = "warn"
    near_duplicates_within_split: _Policy = "warn"
    groups_across_splits: _Policy = "error"
    unknown_labels: _Policy = "error"
    empty_labels: _Policy = "warn"
    absent_classes: _Policy = "warn"
    rare_classes: _Policy = "warn"
    imbalance: _Policy = "warn"
    outlying_sizes: _Policy = "warn"
    outlying_aspects: _Policy = "warn"
    dark_images: _Policy = "warn"
    bright_images: _Policy = "warn"
    blurred_images: _Policy = "warn"

    rare_class_under: Annotated[int, Field(ge=1)] = 10
    imbalance_over: Annotated[float, Field(ge=1)] = 20.0
    smallest_side: Annotated[int, Field(ge=1)] = 8
    outlying_fences: Annotated[float, Field(gt=0)] = 3.0
    dark_under: Level = 16.0
    bright_over: Level = 240.0
    blurred_under: Annotated[float, Field(ge=0)] = 20.0
    near_duplicate_bits: Annotated[int, Field(ge=0, le=LARGEST_DISTANCE)] = 3
    near_duplicate_levels: Level = 6.0

    def policy(self, rule: str) -> Policy:
        """Return a rule's policy by the rule's name."""
        policy: Policy = getattr(self, rule)
        return policy


RULES: tuple[str, ...] = tuple(
    name for name, field in GateConfig.model_fields.items() if field.default in get_args(Policy)
)
"""Names of the rules, in the order of the table."""
