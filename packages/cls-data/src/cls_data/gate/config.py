"""Policies and thresholds of the data gate."""

from typing import Annotated, Literal, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from cls_data.gate.duplicates import MAX_HASH_DISTANCE

Policy = Literal["error", "warn", "off"]


def _off_if_false(value: object) -> object:
    """Accept YAML's unquoted `off`, which is a boolean."""
    return "off" if value is False else value


_Policy = Annotated[Policy, BeforeValidator(_off_if_false)]
_Level = Annotated[float, Field(ge=0, le=255)]


class GateConfig(BaseModel):
    """A policy for each rule, followed by the rules' thresholds.

    The policy `error` stops a run, `warn` logs the findings, and `off` skips the rule. Malformed
    rows, missing or undecodable images, and labels that train lacks stop a run under any policy,
    as soon as they are read.

    Attributes:
        schema_errors: Rows that do not match the schema.
        image_files: Rows whose image is missing or lies outside the data root.
        damaged_images: Files that are empty, truncated, corrupt, or not an image.
        huge_images: Images with more pixels than `max_pixels` of the preprocessing, according to
            their headers.
        wrong_extensions: Files whose extension does not match their format.
        conflicting_labels: One image (same bytes or same pixels) with several labels.
        duplicates_across_splits: One image in several splits.
        duplicates_within_split: One image several times in a split, with the same label.
        near_duplicates_across_splits: Images that look alike, in several splits.
        near_duplicates_within_split: Images that look alike, within one split.
        groups_across_splits: A group (a game, a video) with rows in several splits.
        unknown_labels: Labels of valid or test that do not occur in train.
        empty_labels: Rows whose label is the empty string.
        similar_labels: Labels that differ only in letter case, blanks, or Unicode form, such as
            "Shoe" and "shoe ", and labels with blanks at an end. "007" and "7" are not similar.
        absent_classes: Classes of train without a row in another split.
        rare_classes: Classes with fewer than `rare_class_under` training rows.
        imbalance: The largest training class has more than `imbalance_over` times as many rows
            as the smallest.
        outlying_sizes: Images much smaller or larger than the others, or with a side shorter
            than `smallest_side`.
        outlying_aspects: Images much narrower or wider than the others.
        dark_images: Mean luma below `dark_under`.
        bright_images: Mean luma above `bright_over`.
        blurred_images: Variance of the Laplacian below `blurred_under`.
        rare_class_under: Number of rows.
        imbalance_over: Ratio of rows.
        smallest_side: Pixels.
        outlying_fences: Distance from the quartiles beyond which a size or an aspect ratio is an
            outlier, in interquartile ranges on a logarithmic scale (Tukey, 1977, uses 3 for
            "far out"). The range counts as at least a factor of 1.25, because all images of a
            set may have the same size.
        dark_under: Level, 0 to 255.
        bright_over: Level, 0 to 255.
        blurred_under: Squared levels.
        near_duplicate_bits: Largest Hamming distance of the 64-bit difference hashes of two
            images that look alike.
        near_duplicate_levels: Largest mean absolute difference of their 12x12 thumbnails, in
            levels of 0 to 255.
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
    similar_labels: _Policy = "warn"
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
    dark_under: _Level = 16.0
    bright_over: _Level = 240.0
    blurred_under: Annotated[float, Field(ge=0)] = 20.0
    near_duplicate_bits: Annotated[int, Field(ge=0, le=MAX_HASH_DISTANCE)] = 3
    near_duplicate_levels: _Level = 6.0

    def policy(self, rule: str) -> Policy:
        """Return the policy of a rule."""
        policy: Policy = getattr(self, rule)
        return policy


RULE_NAMES: tuple[str, ...] = tuple(
    name for name, field in GateConfig.model_fields.items() if field.default in get_args(Policy)
)
"""Names of the rules, in the order in which they run."""
