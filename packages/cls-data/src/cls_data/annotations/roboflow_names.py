"""File names of Roboflow exports."""


def roboflow_stem(name: str) -> str | None:
    """Return the part of a file name that copies of one source image share; None without ".rf.".

    Roboflow names the augmented copies of one image `name_jpg.rf.<hash>.jpg`.
    """
    stem, _, _ = name.rpartition(".rf.")
    return stem or None
