"""The costs measured at load are kept between runs, and their place."""

import asyncio
import json

from forebay_server.service.models.batching import executed_sizes, measured_sizes
from forebay_server.service.server import Server
from forebay_server.service.settings import ServeSettings, default_cache_folder
from tests.support.real_server import simulated


def load_once(root, cache_folder):
    """Start a server on the repository `root` and end it."""

    async def scenario():
        settings = ServeSettings(address="127.0.0.1:0", model_repository=(root,), cache_folder=cache_folder)
        server = Server(settings)
        await server.start()
        await server.close()

    asyncio.run(scenario())


def test_costs_are_kept_and_used_by_the_next_server(tmp_path):
    root = simulated(tmp_path / "models", alpha_ms=20, beta_ms=0.1)  # long enough to be found again on a busy machine
    load_once(root, tmp_path / "cache")
    (kept,) = (tmp_path / "cache" / "costs").iterdir()
    data = json.loads(kept.read_text())
    assert data["sizes"] == [1, 2, 4]
    assert data["identity"]["model"] == "sim"
    data["execute_ns"][1] += 1  # only the smallest and the largest size are tried again
    kept.write_text(json.dumps(data))
    load_once(root, tmp_path / "cache")
    assert json.loads(kept.read_text()) == data


def test_costs_that_hold_no_longer_are_measured_and_kept_anew(tmp_path):
    root = simulated(tmp_path / "models", alpha_ms=20, beta_ms=0.1)
    load_once(root, tmp_path / "cache")
    (kept,) = (tmp_path / "cache" / "costs").iterdir()
    right = json.loads(kept.read_text())
    kept.write_text(json.dumps({**right, "execute_ns": [100 * ns for ns in right["execute_ns"]]}))
    load_once(root, tmp_path / "cache")
    assert json.loads(kept.read_text())["execute_ns"][0] < 2 * right["execute_ns"][0]


def test_cache_that_cannot_be_written_is_no_problem(tmp_path):
    root = simulated(tmp_path / "models", alpha_ms=0.5, beta_ms=0.1)
    (tmp_path / "cache").write_text("a file where a folder should be")
    load_once(root, tmp_path / "cache")
    assert (tmp_path / "cache").is_file()


def test_cache_folder_follows_the_platform():
    assert str(default_cache_folder({"XDG_CACHE_HOME": "/x", "HOME": "/h"})) == "/x/forebay"
    assert str(default_cache_folder({"HOME": "/h"})) == "/h/.cache/forebay"
    assert default_cache_folder({}) is None


def test_only_cuda_pads_to_captured_sizes():
    assert measured_sizes(12) == (1, 2, 4, 8, 12)
    assert executed_sizes("cuda", 12) == (1, 2, 4, 8, 12)
    assert executed_sizes("cpu", 12) == tuple(range(1, 13))
