"""The memory of one version in the engine process: its file, and its file's pieces as buffers of the device.

Each slot of each share is a host buffer of its own. When a request arrives its buffer is accessed as by a writer, which
stands for the front-end process that has written its inputs: on a device that checks ordering, a slot that is used
again before its inputs were read is an error. The rows area becomes a buffer on first use (`rows_area`).

Thread: one opens and one closes; `place` is the links' thread's.
"""

import errno
from contextlib import ExitStack
from typing import TypeAlias

from forebay_server.engines.device import Device, HostBuffer
from forebay_server.engines.engine import EngineSpecs
from forebay_server.engines.errors import DeviceMemoryError
from forebay_server.service.batching.egress_time import EgressNumbers
from forebay_server.service.group.arrays_share import ArraysShare
from forebay_server.service.group.group_egress import GroupEgress
from forebay_server.service.group.memory_file import MemoryFile
from forebay_server.service.group.memory_layout import (
    ALIGNMENT_BYTES,
    NO_ARRAYS,
    ArraysLimits,
    layout_of,
    most_requests,
)
from forebay_server.service.group.outputs_area import OutputsArea
from forebay_server.service.group.place_error import PlaceError
from forebay_server.service.group.rows_area import RowsArea
from forebay_server.service.group.shared_outputs import SharedArraysReader, SharedOutputReader
from forebay_server.service.group.version_header import VersionHeader
from forebay_server.service.pictures.device_picture import FilePicture, FilePlace
from forebay_server.service.pipeline.outputs import Finish, OutputReader
from forebay_server.service.request import Feasibility


class VersionMemory:
    """See the module.

    Args:
        device: of the version's first lane; the calling thread is attached to it.
        specs: of the model.
        front_ends: how many there are.
        permits: frames that the group may hold.
        rows_bytes: for all requests of several rows.
        arrays: for a version whose shapes vary.

    Raises:
        DeviceMemoryError: it does not fit.

    Attributes:
        layout: of the file.
        header: of the file.
        fd: of the file.
        most_requests: that can be with the engine process at once.
        most_rows: of a request.
        egress: how long delivery takes in the front-end processes.
    """

    def __init__(
        self,
        device: Device,
        specs: EngineSpecs,
        front_ends: int,
        permits: int,
        rows_bytes: int,
        arrays: ArraysLimits = NO_ARRAYS,
        files: FilePlace | None = None,
    ) -> None:
        self.layout = layout = layout_of(specs, front_ends, permits, rows_bytes, arrays, files)
        self.most_requests = front_ends * most_requests(permits, front_ends)
        self.most_rows = specs.max_batch_size
        self._specs = specs
        with ExitStack() as undo:  # an allocation that does not fit leaves nothing behind
            self._file = _made(layout.file_bytes, is_fixed=specs.is_fixed)
            undo.callback(self._file.close)
            undo.callback(self._file.empty)  # a view somewhere may live until the garbage collector comes
            self.header = VersionHeader(self._file.memory, front_ends)
            undo.callback(self.header.close)
            self.shares: list[AnyShare] = []
            area = OutputsArea(layout)
            for front_end in range(front_ends):
                if specs.is_fixed:
                    self.shares.append(Share(self, device, front_end, undo))
                else:
                    self.shares.append(ArraysShare(self._file.memory, layout, specs, front_end, area))
            self._undo = undo.pop_all()
        self.egress: EgressNumbers = GroupEgress(self.header)

    @property
    def fd(self) -> int:
        """Descriptor of the file."""
        return self._file.fd

    @property
    def memory(self) -> memoryview:
        """All of the file."""
        return self._file.memory

    def reader(self, model_version: str, finish: Finish) -> OutputReader:
        """Return what reads outputs out of the lanes' slots."""
        if self.layout.slots:
            return SharedOutputReader(self.layout, self._file.memory, model_version, finish)
        return SharedArraysReader(self._specs, model_version, finish)

    def publish(self, feasibility: Feasibility) -> None:
        """Let the front-end processes know. Thread: the former's."""
        self.header.publish(feasibility)

    def close(self) -> None:
        """Free it. No request is left, and the calling thread is attached to the device."""
        while self.shares:  # no view of the file stays with them, so that it is unmapped here
            self.shares.pop().close()
        self._undo.close()


class Share:
    """The memory of one front-end process in one version's file.

    Args:
        memory: of the version.
        device: makes buffers of it.
        front_end: whose it is.
        undo: closes the slots.

    Attributes:
        rows: the rows area.
    """

    def __init__(self, memory: VersionMemory, device: Device, front_end: int, undo: ExitStack) -> None:
        layout = memory.layout
        self._layout = layout
        self._most_rows = memory.most_rows
        self._output_start = layout.inputs_bytes(1)
        self._row_places = layout.input_places(1)
        self._rows_start = layout.rows_offset(front_end)
        self._rows_end = self._rows_start + layout.rows_area_bytes
        self.rows = RowsArea(device, memory.memory[self._rows_start : self._rows_end])
        start = layout.share_offset(front_end)
        slots = device.register_host(memory.memory[start : start + layout.slots_bytes])
        undo.callback(slots.close)
        self._slots = {
            start + place: slots.part(place, self._output_start)
            for place in range(0, layout.slots * layout.slot_bytes, layout.slot_bytes)
        }

    def place(self, rows: int, input_offset: int, output_offset: int) -> tuple[HostBuffer, tuple[int, ...]]:
        """Return the buffer that a request's inputs are in, and the offset of each input there.

        A request of several rows gets `nowhere`, until `rows` places it.

        Raises:
            PlaceError: the inputs, or the place for the outputs, are not in this share.
        """
        if rows != 1:
            return self.nowhere, self._place_rows(rows, input_offset, output_offset)
        host = self._slots.get(input_offset)
        if host is None or output_offset - input_offset != self._output_start:
            raise PlaceError(f"no slot begins at {input_offset}, with outputs at {output_offset}")
        host.write_view()  # by the front-end process, just before
        return host, self._row_places

    def file(self, nbytes: int, size: tuple[int, int]) -> FilePicture:
        """Return the file that lies in the slot of a request. Raises PlaceError: there is no room for it."""
        files = self._layout.files
        if files is None or not 0 < nbytes <= files.nbytes:
            raise PlaceError(f"a file of {nbytes} bytes does not fit into a slot")
        return FilePicture(files.offset, nbytes, size)

    @property
    def nowhere(self) -> HostBuffer:
        """A buffer for a request that is not read."""
        return next(iter(self._slots.values()))

    def _place_rows(self, rows: int, input_offset: int, output_offset: int) -> tuple[int, ...]:
        layout = self._layout
        is_inside = (
            1 < rows <= self._most_rows
            and input_offset >= self._rows_start
            and output_offset >= input_offset + layout.inputs_bytes(rows)
            and output_offset + layout.outputs_bytes(rows) <= self._rows_end
            and not (input_offset | output_offset) % ALIGNMENT_BYTES
        )
        if not is_inside:
            raise PlaceError(
                f"{rows} rows at {input_offset}, with outputs at {output_offset}, are not in the rows area"
            )
        start = input_offset - self._rows_start
        return tuple(start + place for place in layout.input_places(rows))

    def close(self) -> None:
        """Free the rows area, and let go of every view."""
        self.rows.close()
        self._slots.clear()


AnyShare: TypeAlias = Share | ArraysShare
"""The memory of one front-end process: slots of fixed size, or places of any."""


def _made(nbytes: int, *, is_fixed: bool) -> MemoryFile:
    try:
        return MemoryFile.create("forebay version", nbytes)
    except OSError as error:
        if error.errno in (errno.EMFILE, errno.ENFILE):
            remedy = "raise the limit of open files (ulimit -n)"
        else:
            remedy = "use fewer permits, raise" if is_fixed else "raise"  # shapes that vary: no setting makes it less
            remedy += " the limit of address space (ulimit -v)"
        reason = f"{nbytes >> 20} MiB of shared memory cannot be had ({error.strerror})"
        raise DeviceMemoryError(f"{reason}: {remedy}, or set front_ends to 0") from None
