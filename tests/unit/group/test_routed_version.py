"""Several engine processes run one version: where its requests go, also when one of them has gone."""

import asyncio
import contextlib
import gc
import weakref

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from forebay_server.service.errors import EngineEndedError, Outcome, UnknownModelError
from forebay_server.service.group.routed_registry import RoutedRegistry
from forebay_server.service.group.routed_version import SLACK_ROWS, member_of
from forebay_server.service.models.description import ModelDescription
from forebay_server.service.pictures.device_picture import FilePlace
from forebay_server.service.pipeline.shares import Share
from tests.support.clock import ManualClock
from tests.support.loops import on_loop
from tests.support.real_server import eventually
from tests.support.requests import frame_request
from tests.support.scripted_engine import FIXED, VARYING, ScriptedEngine

FRONT_END, OTHER_FRONT_END = 0, 1
FILES = FilePlace(128, 4096, 100)


class Scene:
    """Two engine processes that run one version, as one front-end process has them."""

    def __init__(self, stack, specs=FIXED):
        self.retired, self.opened = [], []
        stack.callback(lambda: [engine.close() for engine in self.opened])
        self.registry = RoutedRegistry(FRONT_END, self.retired.append)
        self.engines = []
        for files in (None, FILES):
            self.engines.append(self.engine(specs, files if specs.is_fixed else None))
        for number, engine in enumerate(self.engines):
            self.registry.join(number, engine.version)
        self.version = self.registry.find("model", "")
        self.ended = []
        self.ids = iter(range(1, 1000))

    def engine(self, specs=FIXED, files=None):
        beside = (self.engines or [True])[0]
        engine = ScriptedEngine(asyncio.get_running_loop(), ManualClock(), specs=specs, beside=beside, files=files)
        self.opened.append(engine)
        return engine

    def number_of(self, frame):
        return [each.version for each in self.engines].index(member_of(frame_request(0, frame)))

    def send(self, frame=None):
        request = frame_request(next(self.ids), frame or self.version.arena.lease())
        request.on_completion = self.ended.append
        request.timeline.admitted_ns = 1
        self.version.arrive(request)
        return request

    def lose(self, engine):
        lost = self.engines[engine]
        lost.link.close()
        lost.version.is_lost = True
        self.registry.leave(lost.version)
        lost.version.fail_in_flight(EngineEndedError("ended"))
        lost.version.retire()


@contextlib.contextmanager
def scene(specs=FIXED):
    with contextlib.ExitStack() as stack:
        yield Scene(stack, specs)


@on_loop
async def test_a_request_goes_where_the_lanes_are_free_first():
    with scene() as found:
        frames = [found.version.arena.lease() for _ in range(8)]
        assert sorted(map(found.number_of, frames)) == [0] * 4 + [1] * 4
        for frame in frames:
            if found.number_of(frame) == 1:
                frame.release()
        more = [found.version.arena.lease() for _ in range(4)]
        assert list(map(found.number_of, more)) == [1] * 4
        for frame in (*frames, *more):
            frame.release()


@on_loop
async def test_a_place_has_room_for_a_file_where_its_own_engine_process_decodes_files():
    with scene() as found:
        frames = [found.version.arena.lease() for _ in range(4)]
        assert {(found.number_of(frame), found.version.arena.files_of(frame)) for frame in frames} == {
            (0, None),
            (1, FILES),
        }
        for frame in frames:
            frame.release()
        assert not found.retired, "they run one version"


@on_loop
async def test_requests_of_other_front_end_processes_count():
    with scene() as found:
        found.engines[0].version.header.write_held(OTHER_FRONT_END, 3)
        frames = [found.version.arena.lease() for _ in range(5)]
        assert sum(map(found.number_of, frames)) == 4
        for frame in frames:
            frame.release()
        assert [each.version.header.held() for each in found.engines] == [3, 0]


@on_loop
async def test_the_turn_goes_round_while_nothing_waits():
    with scene() as found:
        numbers = []
        for _ in range(6):
            frame = found.version.arena.lease()
            numbers.append(found.number_of(frame))
            frame.release()
        assert sorted(numbers) == [0, 0, 0, 1, 1, 1]


@on_loop
async def test_a_slower_engine_process_gets_less():
    with scene() as found:
        found.engines[1].version.row_ns *= 3
        frames = [found.version.arena.lease() for _ in range(8)]
        assert sum(map(found.number_of, frames)) == 2
        for frame in frames:
            frame.release()


@on_loop
async def test_a_live_camera_stays_while_a_frame_of_it_is_there():
    with scene() as found:
        share = Share()
        share.follows = True
        first = found.version.arena.lease(share)
        stays = found.number_of(first)
        found.engines[stays].version.header.write_held(OTHER_FRONT_END, SLACK_ROWS - 2)
        second = found.version.arena.lease(share)
        assert found.number_of(second) == stays
        found.engines[stays].version.header.write_held(OTHER_FRONT_END, SLACK_ROWS + 5)
        third = found.version.arena.lease(share)
        assert found.number_of(third) != stays
        for frame in (first, second, third):
            frame.release()
        fourth = found.version.arena.lease(share)
        assert found.number_of(fourth) != stays
        fourth.release()


@on_loop
async def test_requests_in_flight_end_at_once_when_their_engine_process_has_gone():
    with scene() as found:
        requests = [found.send() for _ in range(6)]
        gone = [request for request in requests if found.number_of(request.frame) == 0]
        found.lose(0)
        await eventually(lambda: len(found.ended) == 3)
        assert {completion.request.id for completion in found.ended} == {request.id for request in gone}
        assert {completion.error.outcome for completion in found.ended} == {Outcome.LOST}
        assert all(request.frame.is_released for request in gone)
        found.version.cancel(requests)  # also those that have ended
        frames = [found.version.arena.lease() for _ in range(3)]
        assert set(map(found.number_of, frames)) == {1}
        for frame in frames:
            frame.release()
        found.engines[1].read()
        found.engines[1].answer(list(found.engines[1].requests))
        await eventually(lambda: len(found.ended) == 6)
        assert found.engines[0].permits.taken_count == found.engines[1].permits.taken_count == 0
        assert not found.retired


@on_loop
async def test_a_client_may_leave_when_its_requests_have_ended_and_their_version_is_closed():
    with scene() as found:
        requests = [found.send() for _ in range(2)]
        found.lose(0)
        found.engines[0].version.close()
        found.version.cancel([request for request in requests if request.frame.is_released])
        found.engines[1].read()
        found.engines[1].answer(list(found.engines[1].requests))
        await eventually(lambda: len(found.ended) == 2)


@on_loop
async def test_a_stream_that_goes_on_keeps_no_memory_of_an_engine_process_that_has_gone():
    with scene() as found:
        share = Share()
        share.follows = True
        found.engines[0].version.header.write_held(OTHER_FRONT_END, 1)
        found.version.arena.lease(share).release()
        found.engines[0].version.header.write_held(OTHER_FRONT_END, 0)
        assert share.route() is found.engines[1].version
        found.version.egress_time.observe(1, 2)
        header, file = (weakref.ref(each) for each in (found.engines[1].version.header, found.engines[1].version._file))
        found.lose(1)
        found.engines.pop().close()
        found.opened.pop()
        gc.collect()  # of the test's own objects
        assert share.route() is header() is file() is None
        found.version.arena.lease(share).release()


@on_loop
async def test_a_frame_that_was_being_decoded_ends_when_it_comes_too_late():
    with scene() as found:
        frames = [found.version.arena.lease() for _ in range(2)]
        found.lose(0)
        for frame in frames:
            found.send(frame)
        await eventually(lambda: found.ended)
        assert [completion.error.outcome for completion in found.ended] == [Outcome.LOST]


@on_loop
async def test_an_engine_process_that_is_started_anew_joins_the_version_that_serves():
    with contextlib.ExitStack() as stack:
        found = Scene(stack)
        found.lose(0)
        found.engines[0] = found.engine()
        found.registry.join(0, found.engines[0].version)
        assert found.registry.find("model", "") is found.version
        assert len(found.version.members) == 2
        assert not found.retired


@on_loop
async def test_without_any_engine_process_the_model_is_unknown_and_its_requests_end():
    with scene() as found:
        assert found.version.try_use()
        found.lose(0)
        found.lose(1)
        with pytest.raises(UnknownModelError):
            found.registry.find("model", "")
        with pytest.raises(EngineEndedError):
            found.version.arena.lease()
        assert found.retired == [found.version]
        found.version.end_use()


@on_loop
async def test_requests_of_varying_shapes_are_shared_out_as_well():
    with scene(VARYING) as found:
        frames = [found.version.unbound.lease((None,)) for _ in range(4)]
        assert sorted(map(found.number_of, frames)) == [0, 0, 1, 1]
        for frame in frames:
            frame.release()
        assert [each.version.header.held() for each in found.engines] == [0, 0]


class Member:
    """The version of one engine process, of which only the life is looked at."""

    def __init__(self, engine, build):
        self.engine, self.build = engine, build
        self.name, self.version, self.specs, self.unbound = "model", "1", build, None
        self.description = ModelDescription("model", "simulated", 1)
        self.statistics = self.requests = None
        self.header, self.arena = Header(), Arena()
        self.users, self.is_lost, self.has_left = 0, False, False

    def try_use(self):
        self.users += 1
        return True

    def end_use(self):
        self.users -= 1
        assert self.users >= 0


class Header:
    def write_egress(self, *numbers):
        pass


class Arena:
    row_bytes = (1,)


class Registries(RuleBasedStateMachine):
    """Engine processes publish, retire, end and start anew, in any order, while streams come and go."""

    members, users = Bundle("members"), Bundle("users")

    def __init__(self):
        super().__init__()
        self.retired, self.every, self.used = [], [], []
        self.registry = RoutedRegistry(0, self.retired.append)
        self.present = {}

    @rule(target=members, engine=st.integers(0, 2), build=st.integers(0, 1))
    def publishes(self, engine, build):
        member = Member(engine, build)
        self.every.append(member)
        self.registry.join(engine, member)
        before = self.present.get(engine)
        self.present[engine] = member
        if before is not None and not before.has_left:  # as an engine process does: its successor first
            self.leave(before, is_lost=False)
        return member

    @rule(member=consumes(members), is_lost=st.booleans())
    def leaves(self, member, is_lost):
        if not member.has_left:
            self.leave(member, is_lost=is_lost)
            self.present.pop(member.engine)

    def leave(self, member, *, is_lost):
        member.has_left, member.is_lost = True, is_lost
        self.registry.leave(member)

    @rule(target=users)
    def opens(self):
        try:
            version = self.registry.acquire("model", "")
        except UnknownModelError:
            assert not self.present
            return None
        self.used.append(version)
        return version

    @rule(version=consumes(users))
    def closes(self, version):
        if version is not None:
            self.used.remove(version)
            version.end_use()

    @invariant()
    def serves_what_an_engine_process_has(self):
        versions = self.registry.versions()
        assert bool(versions) == bool(self.present)
        if versions:
            serving = self.registry.find("model", "")
            assert serving.members
            assert not serving.is_retired
            assert {member.specs for member in serving.members} == {serving.specs}, "one build"
            assert len({member.engine for member in serving.members}) == len(serving.members)
            assert all(self.present[member.engine] is member for member in serving.members)

    @invariant()
    def holds_what_is_used_and_lets_go_of_the_rest(self):
        for member in self.every:
            if member.is_lost:
                assert not member.users
            if member.has_left and member.users:
                assert any(member in version.members and version.is_retired for version in self.used)
        for version in self.retired:
            assert version.is_retired


TestRegistries = Registries.TestCase
