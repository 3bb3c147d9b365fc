from types import ModuleType

import cls_report


def test_all_lists_exactly_the_public_names() -> None:
    public = set()
    for name, value in vars(cls_report).items():
        if not name.startswith("_") and not isinstance(value, ModuleType):
            public.add(name)
    assert public == set(cls_report.__all__)
