"""The synchronous client against a real server that follows a script, on a loop of another thread."""

import asyncio
import gc
import os
import signal
import subprocess
import sys
import threading

import grpc
import numpy as np
import pytest

import forebay
from forebay.wire import frames_pb2 as wire
from tests.support.guard import HANG_GUARD_S
from tests.support.repository import ROOT
from tests.support.scripted_server import ScriptedServerThread

EVERY = {"model": "m", "encoding": "jpeg", "delivery": "every"}
LATEST = {"model": "m", "encoding": "jpeg"}
PIXELS = np.zeros((4, 6, 3), np.uint8)


def seqs_and_words(results):
    return [(result.seq, result.status.value) for result in results]


def test_frames_come_back_in_order():
    with ScriptedServerThread() as server, forebay.Client(server.address) as client:
        with client.stream("door", **EVERY) as stream:
            assert stream.opened.window == 4
            for _ in range(3):
                stream.send(b"jpeg")
        assert seqs_and_words(stream) == [(1, "ok"), (2, "ok"), (3, "ok")]


def test_one_thread_sends_and_receives_in_turn():
    with ScriptedServerThread() as server, forebay.Client(server.address) as client:
        stream = client.stream("door", model="m")
        for number in range(1, 20):
            assert stream.send(PIXELS) == number
            assert stream.receive().seq == number
        stream.close()


def test_map_needs_no_second_thread():
    with ScriptedServerThread() as server, forebay.Client(server.address) as client:
        stream = client.stream("door", **EVERY)
        assert [result.seq for result in stream.map(b"jpeg" for _ in range(40))] == list(range(1, 41))
        stream.close()


def test_one_thread_sends_while_another_receives():
    with ScriptedServerThread() as server, forebay.Client(server.address) as client:
        stream = client.stream("door", **EVERY)
        received = []
        receiver = threading.Thread(target=lambda: received.extend(stream))
        receiver.start()
        for _ in range(30):
            stream.send(b"jpeg")
        stream.finish()
        receiver.join(HANG_GUARD_S)
        stream.close()
        assert [result.seq for result in received] == list(range(1, 31))


def test_blocking_send_goes_on_when_a_result_is_taken():
    async def script(call):
        await call.accept(window=1)
        await call.echo()

    with ScriptedServerThread(script) as server, forebay.Client(server.address) as client:
        stream = client.stream("door", **EVERY)
        sender = threading.Thread(target=lambda: [stream.send(b"jpeg") for _ in range(5)])
        sender.start()
        assert [stream.receive().seq for _ in range(5)] == [1, 2, 3, 4, 5]
        sender.join(HANG_GUARD_S)
        stream.close()


def test_no_result_yet_is_not_the_end():
    async def script(call):
        await call.accept()
        frame = await call.read()
        await may_answer.wait()
        await call.answer(frame)
        await call.echo()

    may_answer = asyncio.Event()
    thread = ScriptedServerThread(script)
    with thread as server, forebay.Client(server.address) as client:
        stream = client.stream("door", **EVERY)
        stream.send(b"jpeg")
        assert (stream.receive(timeout_s=0), stream.has_ended) == (None, False)
        stream.finish()
        assert (stream.receive(timeout_s=0), stream.has_ended) == (None, False)
        thread.call(may_answer.set)
        assert stream.receive().seq == 1
        assert (stream.receive(timeout_s=0), stream.has_ended) == (None, True)
        stream.close()


def test_timeouts_of_waiting_calls():
    async def script(call):
        await call.accept(window=1)
        await call.read()
        sent.set()
        await call.read()

    sent = threading.Event()
    with ScriptedServerThread(script) as server, forebay.Client(server.address) as client:
        stream = client.stream("door", **EVERY)
        assert stream.receive(timeout_s=0) is None
        stream.send(b"in flight")
        sent.wait(HANG_GUARD_S)
        stream.send(b"in the queue")
        with pytest.raises(forebay.SendTimeoutError):
            stream.send(b"no room", timeout_s=0)
        stream.abort()
        assert {result.status.value for result in stream} <= {"unanswered", "not_sent"}


def test_refused_stream_says_why():
    async def script(call):
        await call.abort(grpc.StatusCode.NOT_FOUND, "no model 'm'")

    with ScriptedServerThread(script) as server, forebay.Client(server.address) as client:
        with pytest.raises(forebay.StreamRefusedError, match="no model 'm'"):
            client.stream("door", **EVERY).open()
        with pytest.raises(forebay.StreamRefusedError), client.stream("door", **EVERY):
            pass


def test_closing_the_client_ends_whatever_waits():
    async def script(call):
        await call.accept()
        await call.read()
        await call.read()

    with ScriptedServerThread(script) as server:
        client = forebay.Client(server.address)
        stream = client.stream("door", **EVERY)
        stream.send(b"jpeg")
        results = []
        waiting = threading.Thread(target=lambda: results.extend(stream))
        waiting.start()
        client.close()
        waiting.join(HANG_GUARD_S)
        assert [result.is_answered for result in results] == [False]
        with pytest.raises(forebay.StreamClosedError):
            client.stream("door", **EVERY)
        with pytest.raises(forebay.StreamClosedError):
            stream.send(b"jpeg")
        client.close()


def test_client_that_nobody_closed_leaves_no_thread():
    before = set(threading.enumerate())
    with ScriptedServerThread() as server:
        stream = forebay.Client(server.address).stream("door", **EVERY)
        stream.send(b"jpeg")  # the stream keeps its client alive
        assert stream.receive().is_ok
        mine = [thread for thread in threading.enumerate() if thread.name == "forebay client" and thread not in before]
        del stream
        gc.collect()
        for thread in mine:
            thread.join(HANG_GUARD_S)
            assert not thread.is_alive()


def test_error_in_the_block_aborts_the_stream():
    with (
        ScriptedServerThread() as server,
        forebay.Client(server.address) as client,
        pytest.raises(KeyError),
        client.stream("door", **EVERY),
    ):
        raise KeyError("the user's own")


def test_bad_frame_does_not_harm_the_stream():
    with ScriptedServerThread() as server, forebay.Client(server.address) as client:
        with client.stream("door", model="m", width=6, height=4) as stream:
            with pytest.raises(ValueError, match="uint8"):
                stream.send(PIXELS.astype(np.float32))
            assert stream.send(PIXELS) == 1
        assert seqs_and_words(stream) == [(1, "ok")]


def test_results_of_every_kind_reach_the_user():
    async def script(call):
        await call.accept()
        codes = [value.number for value in wire.StatusCode.DESCRIPTOR.values if value.number]
        for code in codes:
            await call.answer(await call.read(), code=code, text="why")
        await call.echo()

    with ScriptedServerThread(script) as server, forebay.Client(server.address) as client:
        stream = client.stream("door", **EVERY)
        words = [result.status.value for result in stream.map(b"jpeg" for _ in range(7))]
        assert words == ["ok", "superseded", "expired", "overloaded", "invalid", "failed", "cancelled"]
        assert stream.statistics().by_status[forebay.Status.FAILED] == 1
        stream.close()


INTERRUPTED = """
import sys, forebay
with forebay.Client(sys.argv[1]) as client, client.stream("door", model="m", encoding="jpeg") as stream:
    stream.send(b"jpeg")
    print("waiting", flush=True)
    stream.receive()
"""


def test_ctrl_c_ends_a_waiting_program_at_once():
    async def script(call):
        await call.accept()
        await call.read()
        await call.read()

    with ScriptedServerThread(script) as server:
        program = subprocess.Popen(
            [sys.executable, "-c", INTERRUPTED, server.address],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        try:
            assert program.stdout.readline() == "waiting\n"
            program.send_signal(signal.SIGINT)
            _, errors = program.communicate(timeout=HANG_GUARD_S)
        finally:
            program.kill()  # nothing, if it has ended
            program.communicate()
        assert program.returncode == -signal.SIGINT
        assert errors.rstrip().endswith("KeyboardInterrupt")
        assert "Exception ignored" not in errors


# A lock that an interrupt leaves taken stops the other thread for ever. Before the client took its locks in `with`
# statements on locks of C, 20 to 80 interrupts were enough.
INTERRUPTED_OFTEN = """
import asyncio, random, signal, threading
import forebay
from forebay.client.loop import LoopThread
def is_free(lock):
    found = []
    other = threading.Thread(target=lambda: found.append(lock.acquire(timeout=60) and lock.release() is None))
    other.start()
    other.join()
    return found == [True]
async def nothing():
    pass
fired = []
def interrupt(number, frame):  # may be swallowed, where Python runs the callback of a weak reference
    fired.append(number)
    raise KeyboardInterrupt
signal.signal(signal.SIGALRM, interrupt)
rng = random.Random(1)
loop = LoopThread("interrupted", nothing)
def interrupted(call):
    fired.clear()
    try:
        signal.setitimer(signal.ITIMER_REAL, rng.uniform(1e-6, 150e-6))
        call()
        while not fired:
            pass
    except KeyboardInterrupt:
        pass
with forebay.Client("127.0.0.1:1") as client:
    stream = client.stream("door", model="m", encoding="jpeg")
    for _ in range(1000):
        interrupted(lambda: stream.receive(0.00005))
        assert is_free(stream._state.monitor.lock)
        interrupted(lambda: loop.call(asyncio.sleep(0)))
        assert loop.call(asyncio.sleep(0, "alive")) == "alive"
loop.stop()
print("alive")
"""


def test_an_interrupt_leaves_no_lock_taken():
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    told = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", INTERRUPTED_OFTEN],  # of coroutines that were not even begun
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=HANG_GUARD_S,
    )
    assert (told.stdout, told.returncode) == ("alive\n", 0), told.stderr


IMPORTS = """
import sys, forebay
early = {"grpc", "numpy", "asyncio"} & set(sys.modules)
assert not early, early
tuning = forebay.tune_process()
assert tuning.has_polling, tuning
assert forebay.tune_process() == tuning
forebay.Client, forebay.aio.Client
assert "grpc" in sys.modules
assert forebay.tune_process() == tuning
heavy = {"cv2", "onnxruntime", "pydantic", "structlog", "typer", "forebay_server"} & set(sys.modules)
assert not heavy, heavy
clash = [name for name in sys.modules if name.endswith("_pb2") and name != "forebay.wire.frames_pb2"]
assert not clash, clash
assert set(forebay.__all__) <= set(dir(forebay))
assert all(hasattr(forebay, name) for name in forebay.__all__)
"""


def test_importing_the_library_brings_in_only_what_it_needs():
    subprocess.run([sys.executable, "-c", IMPORTS], check=True, env={"PYTHONPATH": str(ROOT)})


def test_tuning_too_late_says_so():
    program = "import grpc, forebay; assert not forebay.tune_process().has_polling"
    subprocess.run([sys.executable, "-c", program], check=True, env={"PYTHONPATH": str(ROOT)})


def test_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'Camera'"):
        forebay.Camera  # noqa: B018
