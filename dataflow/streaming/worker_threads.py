"""The engine's worker threads, seen from Python."""

import ctypes
import threading

_here = threading.local()


def keep_thread_state() -> None:
    """Lets this thread keep its Python thread state; to be called in a thread that the engine has started.

    Such a thread has one only while it is inside Python, so each call of a step, some 20 for every batch, made a state
    and threw it away again, with the memory of its frames mapped and unmapped by the kernel: a third of the time of a cluster's processes.
    Counting it in once more (https://docs.python.org/3/c-api/init.html#c.PyGILState_Ensure) and never out again is all
    that it takes; the interpreter's lock is let go as before.
    """
    if not hasattr(_here, "kept"):
        _here.references = ctypes.pythonapi.PyGILState_Ensure()
