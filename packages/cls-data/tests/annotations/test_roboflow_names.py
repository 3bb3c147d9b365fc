import pytest

from cls_data.annotations.roboflow_names import roboflow_stem


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("a_jpg.rf.01.jpg", "a_jpg"),
        ("a.rf.b_png.rf.01.jpg", "a.rf.b_png"),
        ("a.jpg", None),
        (".rf.01.jpg", None),
    ],
)
def test_roboflow_stem_returns_the_source_image(name: str, stem: str | None) -> None:
    assert roboflow_stem(name) == stem
