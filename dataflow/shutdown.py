"""Whether the process has been told to stop: then nothing waits for an absent broker any more."""

import threading

requested = threading.Event()
