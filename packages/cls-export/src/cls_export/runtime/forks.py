"""Sessions of onnxruntime in forked processes."""

import ctypes
import os
import weakref

import onnxruntime as ort

_sessions: "weakref.WeakSet[ort.InferenceSession]" = weakref.WeakSet()


def register_session(session: ort.InferenceSession) -> None:
    """Keep forked processes from closing this session, which they inherit.

    Closing a session waits for its threads, which a fork does not copy.
    """
    _sessions.add(session)


def _never_close_inherited_sessions() -> None:
    for session in _sessions:
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(session))


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_never_close_inherited_sessions)
