import logging

import pytest

from cls_train.logs import configure_logging


@pytest.mark.parametrize("name", ["fsspec", "gcsfs", "gcsfs.retry", "s3fs"])
def test_tracebacks_of_storage_libraries_are_not_shown(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    configure_logging()
    try:
        raise OSError("no network")
    except OSError:
        logging.getLogger(name).exception("a request failed")
    assert not caplog.records
