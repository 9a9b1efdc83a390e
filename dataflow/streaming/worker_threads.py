"""The engine's worker threads, as Python sees them."""

import ctypes
import threading

_local = threading.local()


def keep_thread_state() -> None:
    """Lets the calling thread keep its Python thread state. Call it in a thread that the engine has started.

    Such a thread has a state only while it is inside Python. Each call of a step, some 20 for every batch, made one and
    threw it away, with the memory of its frames mapped and unmapped by the kernel: a third of the processor time of a
    cluster's processes. One extra reference (https://docs.python.org/3/c-api/init.html#c.PyGILState_Ensure) keeps the
    state; the interpreter lock is released as before.
    """
    if not hasattr(_local, "state"):
        _local.state = ctypes.pythonapi.PyGILState_Ensure()
