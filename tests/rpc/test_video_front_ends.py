"""Video through front-end processes in front of one engine process, with real processes; and one of them is killed."""

import os
import signal

import numpy as np
import psutil
import pytest

import forebay
from tests.rpc.test_front_ends import pids
from tests.support.pictures import SIDE, pictures
from tests.support.supervised import served
from tests.support.videos import clip, level, parameter_sets

GOP = 20
SENT_BEFORE, SENT = 26, 3 * GOP


def shown_level(result):
    """The mean grey of the picture that the model saw."""
    (tensor,) = result.tensors.values()
    return float(np.asarray(tensor).reshape(SIDE, SIDE, 3).mean())


def front_end_of(ready):
    """The front-end process to which this process is connected."""
    port = int(ready["address"].rpartition(":")[2])
    for pid in pids(ready, "front-end"):
        for each in psutil.Process(pid).net_connections("tcp"):
            if each.status == psutil.CONN_ESTABLISHED and each.laddr.port == port:
                return pid
    raise AssertionError("no front-end process has a connection")


@pytest.mark.parametrize("codec", ["h264", "h265"])
def test_after_the_death_of_its_front_end_process_a_stream_goes_on_at_a_keyframe(tmp_path, codec):
    own = "hevc" if codec == "h265" else codec
    units = clip(SENT, own, gop=GOP)
    (tmp_path / "models").mkdir()
    arguments = ["--address", "127.0.0.1:0", "--model-repository", pictures(tmp_path / "models"), "--front-ends", "2"]
    with served(*arguments, environment={"FOREBAY_CACHE_FOLDER": str(tmp_path / "cache")}) as group:
        ready = group.wait_ready()
        sets = parameter_sets(units[0], own)
        with (
            forebay.Client(ready["address"]) as client,
            client.stream("door", model="camera", encoding=codec, delivery="every", parameter_sets=sets) as stream,
        ):
            results = []
            for index, unit in enumerate(units):
                if index == SENT_BEFORE:
                    os.kill(front_end_of(ready), signal.SIGKILL)
                stream.send(unit.data)
                results.append(stream.receive())
            assert stream.statistics().opened == 2
        os.kill(group.process.pid, signal.SIGTERM)
        assert group.wait() == 0, group.log
    assert [result.seq for result in results] == list(range(1, SENT + 1))
    words = [result.status.value for result in results]
    waited = [index for index, word in enumerate(words) if word == "needs_keyframe"]
    assert set(words) == {"ok", "needs_keyframe"}
    assert waited == list(range(SENT_BEFORE, 2 * GOP))  # up to the next keyframe, and no further
    for unit, result in zip(units, results, strict=True):
        if result.is_ok:
            assert shown_level(result) == pytest.approx(level(unit.shown), abs=3)
