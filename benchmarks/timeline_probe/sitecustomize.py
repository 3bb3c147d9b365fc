"""Python imports this at the start of each process whose PYTHONPATH names this folder."""

import os

if "CLS_TIMELINE" in os.environ:
    import process_probe

    process_probe.install(os.environ["CLS_TIMELINE"], os.environ.get("CLS_TIMELINE_TRACE"))
