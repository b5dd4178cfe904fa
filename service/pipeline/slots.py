"""Slots: the fixed sets of buffers and events that batches in flight live in.

Theory of operation
    A lane has `slot_count` slots, allocated at start-up and never again. A batch in flight lives in exactly one. The
    slot's state says who may touch it; `TRANSITIONS` is the whole truth about how it moves, and docs/architecture.md
    draws its diagram from this table. The former reserves (FREE -> RESERVED), each stage moves the slot on when its
    work is *enqueued*, and the d2h stage frees it once its outputs have left it.

    A batch that the former has taken back passes through with its slot RESERVED or UPLOADING, and it is freed so.

    A slot that FAILED returns to FREE only after the stage that failed has synchronised its device stream. That stream
    had waited for the earlier ones, so nothing on the device touches the slot any more. If the device is lost it
    never returns.

Owner: one thread at a time, by state. RESERVED: former; FILLING, UPLOADING: h2d; EXECUTING: execute; DOWNLOADING, READY
and FAILED: d2h. Hand-over is by Channel. A batch that runs inline is its thread's in every state.
"""

import enum
from collections import deque
from contextlib import ExitStack
from typing import Any

from numpy.typing import NDArray

from forebay_server.engines.device import Device, DeviceBuffer, Event, HostBuffer
from forebay_server.engines.engine import EngineSpecs, SlotBuffers
from forebay_server.service.errors import InvariantError


class SlotState(enum.Enum):
    """Where a slot is in its round."""

    FREE = "free"
    RESERVED = "reserved"
    FILLING = "filling"
    UPLOADING = "uploading"
    EXECUTING = "executing"
    DOWNLOADING = "downloading"
    READY = "ready"
    FAILED = "failed"

    __hash__ = object.__hash__  # members are unique; Enum's own is Python code, and a batch hashes sixteen states


_S = SlotState
TRANSITIONS: dict[SlotState, frozenset[SlotState]] = {
    _S.FREE: frozenset({_S.RESERVED}),
    _S.RESERVED: frozenset({_S.FILLING, _S.FREE, _S.FAILED}),
    _S.FILLING: frozenset({_S.UPLOADING, _S.FAILED}),
    _S.UPLOADING: frozenset({_S.EXECUTING, _S.FREE, _S.FAILED}),
    _S.EXECUTING: frozenset({_S.DOWNLOADING, _S.FAILED}),
    _S.DOWNLOADING: frozenset({_S.READY, _S.FAILED}),
    _S.READY: frozenset({_S.FREE, _S.FAILED}),
    _S.FAILED: frozenset({_S.FREE}),
}


class Slot:
    """Buffers, events and state of one batch in flight.

    Attributes:
        index: 0 .. slot_count-1.
        host_inputs: gather buffers, one per input, max_batch_size rows.
        device_inputs: the engine reads them.
        device_outputs: the engine writes them, unless it owns its output addresses.
        host_outputs: `OutputReader` reads them.
        current_outputs: where the outputs of the present batch lie on the device; set by the execute stage.
        arrays: the outputs of a model that runs unbound (`service.pipeline.unbound`), whose slot has no buffers.
    """

    def __init__(self, index: int, device: Device, specs: EngineSpecs) -> None:
        rows = specs.max_batch_size
        self.index = index
        self.state = SlotState.FREE
        with ExitStack() as undo:  # an allocation that does not fit leaves nothing behind
            made = _Maker(device, undo)
            inputs, outputs = (specs.inputs, specs.outputs) if specs.is_fixed else ((), ())
            self.host_inputs = tuple(made.host(rows * spec.row_bytes) for spec in inputs)
            self.device_inputs = tuple(made.mirror(host) for host in self.host_inputs)
            self.host_outputs = tuple(made.host(rows * spec.row_bytes) for spec in outputs)
            self.device_outputs = tuple(made.mirror(host) for host in self.host_outputs)
            self.current_outputs: tuple[DeviceBuffer, ...] = self.device_outputs
            self.arrays: tuple[NDArray[Any], ...] = ()
            self.upload_started = made.event()
            self.uploaded = made.event()
            self.execute_started = made.event()
            self.executed = made.event()
            self.download_started = made.event()
            self.downloaded = made.event()
            self._memory = undo.pop_all()

    @property
    def buffers(self) -> SlotBuffers:
        """The device side, as an engine sees it."""
        return SlotBuffers(self.index, self.device_inputs, self.device_outputs)

    def move_to(self, state: SlotState) -> None:
        """Change state. Raises InvariantError for a move that the table does not have."""
        if state not in TRANSITIONS[self.state]:
            raise InvariantError(f"slot {self.index}: {self.state.value} -> {state.value} is not a transition")
        self.state = state

    def close(self) -> None:
        """Free everything, last made first. The device streams are idle."""
        self._memory.close()


PAGE_BYTES = 4096


class _Maker:
    """Makes things of one device and has `undo` close them."""

    def __init__(self, device: Device, undo: ExitStack) -> None:
        self._device = device
        self._undo = undo

    def host(self, nbytes: int) -> HostBuffer:
        buffer = self._device.alloc_host(nbytes)
        self._undo.callback(buffer.close)
        buffer.write_view()[::PAGE_BYTES] = 0  # else a slot's first batches pay for its pages: 12 ms for 19 MB
        return buffer

    def mirror(self, host: HostBuffer) -> DeviceBuffer:
        buffer = self._device.alloc_device(host.nbytes, mirror=host)
        self._undo.callback(buffer.close)
        return buffer

    def event(self) -> Event:
        event = self._device.create_event()
        self._undo.callback(event.close)
        return event


class SlotPool:
    """The slots of one lane and which of them are FREE. The former takes; it and the d2h stage give back."""

    def __init__(self, slots: tuple[Slot, ...]) -> None:
        self.slots = slots
        self._free: deque[Slot] = deque(slots)  # append and popleft are atomic

    @property
    def free_count(self) -> int:
        """How many are FREE now."""
        return len(self._free)

    def try_reserve(self) -> Slot | None:
        """FREE -> RESERVED for the slot that has been free longest, or None. Thread: former."""
        try:
            slot = self._free.popleft()
        except IndexError:
            return None
        slot.move_to(SlotState.RESERVED)
        return slot

    def release(self, slot: Slot) -> None:
        """Make it FREE again: after READY, after RESERVED with nothing to send, or after FAILED and synchronised."""
        slot.move_to(SlotState.FREE)
        self._free.append(slot)

    def close(self) -> None:
        """Free every slot's memory."""
        for slot in self.slots:
            slot.close()
