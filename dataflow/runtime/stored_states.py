"""What the last snapshot in a recovery store says, read before the engine does."""

import dataclasses
from pathlib import Path

from dataflow.clickstream.outputs import OUTPUTS
from dataflow.clickstream.topology import FLOW
from dataflow.kafka.offsets import PartitionId
from dataflow.kafka.sink import SINK_CONVERTERS, SinkState
from dataflow.runtime import recovery_store
from dataflow.runtime.settings import Settings
from dataflow.streaming.state import JobFingerprint, StateCodec


class StoredStates:
    """The states from which the job will resume. Its methods raise UserError if they are of another job.

    Args:
        store: its directory; None: there is none.
        settings: of the job.
        fingerprint: of the job.
    """

    def __init__(self, store: Path | None, settings: Settings, fingerprint: JobFingerprint) -> None:
        self._store = store
        self._settings = settings
        silent = dataclasses.replace(fingerprint, on_change=lambda *_: None)  # the operators tell of changes
        self._codec: StateCodec[SinkState] = StateCodec(SinkState, silent, SINK_CONVERTERS)

    def settings(self) -> dict[str, float | str]:
        """The settings under which it was taken."""
        settings: dict[str, float | str] = {}
        for state in self._states("read_events").values():  # sources are in every snapshot
            settings |= self._codec.settings(state)
        return settings

    def topics(self) -> set[str]:
        """The topics that the job had then."""
        return {topic for state in self._states("read_events").values() for topic in self._codec.topics(state)}

    def sinks(self) -> dict[PartitionId, SinkState]:
        """The states from which the sinks will resume."""
        return {
            (self._settings.topic(spec), int(part)): self._codec.unpack(state)
            for spec in OUTPUTS
            for part, state in self._states(f"write_{spec.step_name}").items()
        }

    def _states(self, step: str) -> dict[str, bytes]:
        return recovery_store.states(self._store, f"{FLOW}.{step}") if self._store is not None else {}
