"""The limits of a server with front-end processes: shared where that can be, else divided."""

from hypothesis import given
from hypothesis import strategies as st

from forebay_server.service.frontend.open_inference.errors import INFERENCE_STATUS
from forebay_server.service.frontend.reception.receptions import Receptions
from forebay_server.service.frontend.stream_call import StreamCalls
from forebay_server.service.group.group_settings import front_end_settings
from forebay_server.service.group.group_streams import GroupStreams
from forebay_server.service.group.shared_counts import PermitCounts, StreamCounts
from forebay_server.service.pipeline.permits import Permits
from forebay_server.service.settings import LEAST_RECEPTION_BYTES, ServeSettings
from tests.support.clock import ManualClock
from tests.unit.frontend.test_stream_call import Context

FRONT_ENDS = 3


def calls_of(memory, front_end):
    clock = ManualClock()
    counts = StreamCounts(memory, FRONT_ENDS)
    receptions = Receptions(ServeSettings(), clock, INFERENCE_STATUS)
    return StreamCalls(receptions, Permits(4, clock), clock, GroupStreams(counts, front_end))


@given(
    st.integers(1, 6),
    st.lists(st.tuples(st.sampled_from(["open", "close", "die"]), st.integers(0, FRONT_ENDS - 1)), max_size=40),
)
def test_streams_are_admitted_up_to_the_limit_over_all_processes(most, events):
    memory = memoryview(bytearray(PermitCounts.BYTES))
    permits = PermitCounts(memory, FRONT_ENDS)
    permits.write(0, 7)
    processes = [calls_of(memory, index) for index in range(FRONT_ENDS)]
    for kind, index in events:
        process = processes[index]
        count = sum(len(each.open) for each in processes)
        if kind == "open":
            assert process.has_room(most) == (count < most)
            if process.has_room(most):
                process.begin(Context())
        elif kind == "close" and process.open:
            process.end(next(iter(process.open)))
        elif kind == "die":
            processes[index] = calls_of(memory, index)
    assert permits.total() == 7


@given(st.integers(1, 100_000), st.integers(1 << 20, 1 << 40), st.integers(1, 60))
def test_a_divided_limit_is_no_more_than_its_parts_and_little_less(connections, reception_bytes, count):
    settings = ServeSettings(max_connections=connections, reception_bytes=reception_bytes)
    part = front_end_settings(settings, count, "127.0.0.1:8001")
    assert connections <= count * part.max_connections < connections + count
    assert part.reception_bytes * count >= reception_bytes
    assert part.reception_bytes == LEAST_RECEPTION_BYTES or part.reception_bytes * count < reception_bytes + count
    assert part.max_streams == settings.max_streams
