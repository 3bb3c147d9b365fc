from pathlib import Path

import pytest
from pydantic import ValidationError

from cls_data import DataModuleConfig


@pytest.mark.parametrize("setting", ["root", "quarantine", "store"])
def test_paths_of_settings_expand_the_home_folder(
    setting: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    config = DataModuleConfig.model_validate({"root": "data", setting: "~/x"})
    assert getattr(config, setting) == tmp_path / "x"


@pytest.mark.parametrize("setting", ["root", "quarantine", "store"])
@pytest.mark.parametrize("kind", ["unknown user", "link to itself"])
def test_impossible_paths_name_the_setting(setting: str, kind: str, tmp_path: Path) -> None:
    path = "~no-such-user/x"
    if kind == "link to itself":
        path = str(tmp_path / "link")
        Path(path).symlink_to(path)
    with pytest.raises(ValidationError, match=f"{setting}\\n.*{kind}") as caught:
        DataModuleConfig.model_validate({"root": "data", setting: path})
    assert len(caught.value.errors()) == 1
