import cls_report


def test_every_public_name_can_be_imported() -> None:
    for name in cls_report.__all__:
        assert getattr(cls_report, name) is not None


def test_all_lists_exactly_the_public_names() -> None:
    assert sorted(cls_report.__all__) == sorted(cls_report._MODULES)
