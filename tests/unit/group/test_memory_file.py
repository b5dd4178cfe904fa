"""The layout of shared memory: no two places of any model overlap; and the numbers that processes share."""

import os
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from forebay_server.engines.engine import EngineSpecs, TensorSpec
from forebay_server.service import settings as service_settings
from forebay_server.service.group.blocks import Blocks
from forebay_server.service.group.memory_file import MemoryFile
from forebay_server.service.group.memory_layout import (
    ALIGNMENT_BYTES,
    HEADER_BYTES,
    MAX_FRONT_ENDS,
    PAGE_BYTES,
    ArraysLimits,
    MemoryLayout,
    layout_of,
)
from forebay_server.service.group.shared_counts import PermitCounts
from forebay_server.service.group.version_header import VersionHeader
from forebay_server.service.request import Feasibility

tensors = st.builds(
    TensorSpec,
    name=st.just("t"),
    dtype=st.sampled_from([np.dtype(np.uint8), np.dtype(np.float32)]),
    shape=st.lists(st.integers(0, 70), max_size=3).map(tuple),
)
models = st.builds(
    EngineSpecs,
    inputs=st.lists(tensors, min_size=1, max_size=3).map(tuple),
    outputs=st.lists(tensors, max_size=3).map(tuple),
    max_batch_size=st.integers(1, 16),
)


def one_row(layout: MemoryLayout, start: int, rows: int) -> list[tuple[int, int]]:
    """Return the byte ranges of a request that lies at `start`, inputs and then outputs."""
    ends = start + layout.inputs_bytes(rows)
    inputs = zip(layout.input_places(rows), layout.input_row_bytes, strict=True)
    outputs = zip(layout.output_places(rows), layout.output_row_bytes, strict=True)
    ranges = [(start + place, start + place + rows * nbytes) for place, nbytes in inputs]
    return ranges + [(ends + place, ends + place + rows * nbytes) for place, nbytes in outputs]


@given(models, st.integers(1, 8), st.integers(1, 20), st.integers(0, 100_000))
def test_no_two_places_overlap(specs: EngineSpecs, front_ends: int, permits: int, rows_bytes: int) -> None:
    layout = layout_of(specs, front_ends, permits, rows_bytes)

    ranges = [(0, HEADER_BYTES)]
    for front_end in range(front_ends):
        for slot in range(layout.slots):
            ranges += one_row(layout, layout.slot_offset(front_end, slot), 1)
        if specs.max_batch_size > 1:
            ranges += one_row(layout, layout.rows_offset(front_end), specs.max_batch_size)

    assert all(start <= end for start, end in ranges)
    assert all(before[1] <= after[0] for before, after in pairwise(ranges))
    assert ranges[-1][1] <= layout.file_bytes
    assert all(start % ALIGNMENT_BYTES == 0 for start, _ in ranges)
    assert all(layout.share_offset(front_end) % PAGE_BYTES == 0 for front_end in range(front_ends))


@given(models, st.integers(1, 8), st.integers(1, 1000))
def test_each_front_end_has_slots_for_twice_its_part_of_the_permits(
    specs: EngineSpecs, front_ends: int, permits: int
) -> None:
    layout = layout_of(specs, front_ends, permits, 0)

    assert layout.slots <= permits
    assert layout.slots * front_ends >= min(2 * permits, front_ends * permits)


@given(models)
def test_the_rows_area_holds_two_of_the_largest_requests(specs: EngineSpecs) -> None:
    layout = layout_of(specs, 4, 16, 0)

    if specs.max_batch_size == 1:
        assert layout.rows_area_bytes == 0
    else:
        most = layout.inputs_bytes(specs.max_batch_size) + layout.outputs_bytes(specs.max_batch_size)
        assert layout.rows_area_bytes >= 2 * most


def test_a_version_whose_shapes_vary_has_areas_for_inputs_and_one_for_outputs() -> None:
    varying = TensorSpec("x", np.dtype(np.float32), (-1,))

    layout = layout_of(EngineSpecs((varying,), (varying,), 8), 4, 256, 1 << 28, ArraysLimits(5_000_000, 9_000_000))

    assert (layout.slots, layout.slots_bytes) == (0, 0)
    assert Blocks(layout.rows_area_bytes // PAGE_BYTES).largest * PAGE_BYTES > 5_000_000
    assert Blocks(layout.outputs_area_bytes // PAGE_BYTES).largest * PAGE_BYTES > 9_000_000
    assert layout.rows_offset(3) + layout.rows_area_bytes == layout.outputs_offset
    assert layout.outputs_offset + layout.outputs_area_bytes == layout.file_bytes


@pytest.mark.parametrize("front_ends", [0, -1, MAX_FRONT_ENDS + 1])
def test_a_wrong_number_of_front_ends_is_refused(front_ends: int) -> None:
    fixed = TensorSpec("x", np.dtype(np.float32), (2,))
    with pytest.raises(ValueError, match="front-end processes"):
        layout_of(EngineSpecs((fixed,), (fixed,), 8), front_ends, 256, 0)


def test_a_file_is_one_memory_for_all_who_map_it() -> None:
    made = MemoryFile.create("test", 3 * PAGE_BYTES)
    mapped = MemoryFile.attach(os.dup(made.fd))
    view = np.frombuffer(mapped.memory, np.uint8)

    made.memory[5000] = 7

    assert view[5000] == 7
    mapped.close()
    made.memory[5001] = 8
    assert view[5001] == 8  # a view outlives the closing
    made.close()
    made.close()


def test_no_process_can_pull_memory_from_under_another_one() -> None:
    made = MemoryFile.create("test", PAGE_BYTES)

    for size in (0, 2 * PAGE_BYTES):
        with pytest.raises(PermissionError):
            os.ftruncate(made.fd, size)

    made.close()


@given(
    st.builds(Feasibility, st.integers(0, 2**40), st.integers(0, 2**40), st.integers(0, 2**62)),
    st.lists(st.tuples(*[st.integers(0, 2**62)] * 6), min_size=1, max_size=MAX_FRONT_ENDS),
)
def test_numbers_of_the_header_keep_apart(
    feasibility: Feasibility, delivery: list[tuple[int, int, int, int, int, int]]
) -> None:
    memory = memoryview(bytearray(HEADER_BYTES))
    writer, reader = VersionHeader(memory, len(delivery)), VersionHeader(memory, len(delivery))

    writer.publish(feasibility)
    for front_end, numbers in enumerate(delivery):
        writer.write_egress(front_end, *numbers)

    assert reader.feasibility() == feasibility
    assert reader.egress() == delivery
    assert reader.feasibility() == feasibility


def test_permits_are_counted_for_each_front_end() -> None:
    memory = memoryview(bytearray(PermitCounts.BYTES))
    counts = PermitCounts(memory, MAX_FRONT_ENDS)

    for front_end in range(MAX_FRONT_ENDS):
        counts.write(front_end, front_end + 1)

    assert [counts.read(front_end) for front_end in range(MAX_FRONT_ENDS)] == list(range(1, MAX_FRONT_ENDS + 1))
    assert counts.total() == sum(range(1, MAX_FRONT_ENDS + 1))


def test_memory_has_room_for_as_many_front_end_processes_as_settings_allow():
    most = service_settings.MAX_FRONT_ENDS
    specs = EngineSpecs((TensorSpec("a", np.dtype(np.uint8), (1,)),), (TensorSpec("b", np.dtype(np.uint8), (1,)),), 1)
    assert layout_of(specs, most, most, 0).front_ends == most
    counts = PermitCounts(memoryview(bytearray(PermitCounts.BYTES)), most)
    counts.write(most - 1, 3)
    assert counts.total() == 3
    counts.close()
