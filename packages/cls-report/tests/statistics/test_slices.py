import json

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from report_data import make_predictions

from cls_data.statistics.metadata_slices import NONE, OTHERS
from cls_report.statistics.slices import slice_predictions

_values = (
    st.none()
    | st.booleans()
    | st.integers(-3, 40)
    | st.floats(-9, 9)
    | st.sampled_from(["a", "b", ""])
)


@settings(deadline=None)
@given(
    st.lists(st.dictionaries(st.sampled_from(["game", "blur"]), _values), min_size=1, max_size=60)
)
def test_each_image_is_in_exactly_one_slice_of_each_key(rows: list[dict[str, object]]) -> None:
    metadata = np.array([json.dumps(row) for row in rows])
    by_key = slice_predictions(make_predictions(images=len(rows), metadata=metadata))
    for slices in by_key.values():
        assert (sum(each.rows.astype(int) for each in slices) == 1).all()


def test_slices_bin_numbers_by_quartiles_and_keep_strings() -> None:
    by_key = slice_predictions(make_predictions(images=80))
    assert [each.value for each in by_key["game"]] == ["game 0", "game 1", "game 2"]
    assert [int(each.rows.sum()) for each in by_key["blur"]] == [20, 20, 20, 20]
    assert by_key["blur"][0].value.startswith("0 to ")


def test_slices_pool_rare_strings_and_rows_without_the_key() -> None:
    metadata = np.array([json.dumps({"game": f"{row}"} if row < 40 else {}) for row in range(50)])
    slices = slice_predictions(make_predictions(images=50, metadata=metadata))["game"]
    assert [each.value for each in slices][-2:] == [OTHERS, NONE]
    assert int(slices[-2].rows.sum()) == 28
    assert int(slices[-1].rows.sum()) == 10


def test_a_short_value_does_not_truncate_the_names_of_pooled_slices() -> None:
    metadata = np.array([json.dumps({"game": chr(97 + row)}) for row in range(20)])
    slices = slice_predictions(make_predictions(images=20, metadata=metadata))["game"]
    assert slices[-1].value == OTHERS
    assert int(slices[-1].rows.sum()) == 8


def test_keys_with_one_value_have_no_slices() -> None:
    predictions = make_predictions(
        metadata=np.full(60, '{"game": "only"}'), sizes=np.zeros((60, 2), np.int32)
    )
    assert slice_predictions(predictions) == {}
