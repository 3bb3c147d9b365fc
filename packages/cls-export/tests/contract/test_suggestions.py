import pytest

from cls_export.contract.suggestions import did_you_mean

MANY = [f"option_{number}" for number in range(41)]


@pytest.mark.parametrize(
    ("given", "valid", "hint"),
    [
        ("sedd", ["seed", "run"], "did you mean 'seed'? Valid names: run, seed"),
        ("xyz", ["seed", "run"], "valid names: run, seed"),
        ("option_40x", MANY, "did you mean 'option_40'?"),
        ("xyz", MANY, "none of the 41 valid names is similar"),
    ],
)
def test_hint_names_the_closest_name_and_lists_few(given: str, valid: list[str], hint: str) -> None:
    assert did_you_mean(given, valid) == hint


def test_suggestions_ignore_letter_case() -> None:
    assert did_you_mean("clazz", ["CLASS", "File"]).startswith("did you mean 'CLASS'?")
    assert did_you_mean("TRAINS", ["train", "valid"]).startswith("did you mean 'train'?")
