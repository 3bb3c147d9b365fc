from types import ModuleType

import cls_models


def test_all_lists_exactly_the_public_names_of_the_package() -> None:
    public = set()
    for name, value in vars(cls_models).items():
        if not name.startswith("_") and not isinstance(value, ModuleType):
            public.add(name)
    assert public == set(cls_models.__all__)
