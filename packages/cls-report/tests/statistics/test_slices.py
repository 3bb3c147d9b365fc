import json

import numpy as np
from drawn import drawn_predictions
from hypothesis import given, settings
from hypothesis import strategies as st

from cls_data.statistics.metadata_slices import NONE, OTHERS
from cls_report.statistics.slices import slices

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
def test_each_image_is_in_one_slice_of_each_key(rows: list[dict[str, object]]) -> None:
    metadata = np.array([json.dumps(row) for row in rows])
    found = slices(drawn_predictions(images=len(rows), metadata=metadata))
    for key in {each.key for each in found}:
        assert (sum(each.rows.astype(int) for each in found if each.key == key) == 1).all()


def test_numbers_are_cut_at_their_quartiles_and_words_are_not() -> None:
    found = slices(drawn_predictions(images=80))
    assert [each.value for each in found if each.key == "game"] == ["game 0", "game 1", "game 2"]
    blur = [each for each in found if each.key == "blur"]
    assert [int(each.rows.sum()) for each in blur] == [20, 20, 20, 20]
    assert blur[0].value.startswith("0 to ")


def test_rare_words_share_a_slice_and_rows_without_the_key_have_their_own() -> None:
    metadata = np.array([json.dumps({"game": f"{row}"} if row < 40 else {}) for row in range(50)])
    found = [
        each
        for each in slices(drawn_predictions(images=50, metadata=metadata))
        if each.key == "game"
    ]
    assert [each.value for each in found][-2:] == [OTHERS, NONE]
    assert int(found[-2].rows.sum()) == 28
    assert int(found[-1].rows.sum()) == 10


def test_what_all_images_share_is_no_slice() -> None:
    found = slices(
        drawn_predictions(
            metadata=np.full(60, '{"game": "only"}'), sizes=np.zeros((60, 2), np.int32)
        )
    )
    assert found == ()
