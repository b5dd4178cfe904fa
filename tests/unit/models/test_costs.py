"""What is measured at load is kept between runs, and where."""

import asyncio
import json

from service.models.batching import executed_sizes, measured_sizes
from service.server import Server
from service.settings import ServeSettings, default_cache_folder
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
    root = simulated(tmp_path / "models", alpha_ms=0.5, beta_ms=0.1)
    load_once(root, tmp_path / "cache")
    (kept,) = (tmp_path / "cache" / "costs").iterdir()
    data = json.loads(kept.read_text())
    assert data["sizes"] == [1, 2, 4]
    assert data["identity"]["model"] == "sim"
    before = kept.stat().st_mtime_ns
    load_once(root, tmp_path / "cache")
    assert json.loads(kept.read_text())["sizes"] == [1, 2, 4]
    assert kept.stat().st_mtime_ns >= before


def test_cache_that_cannot_be_written_is_no_problem(tmp_path):
    root = simulated(tmp_path / "models", alpha_ms=0.5, beta_ms=0.1)
    (tmp_path / "cache").write_text("a file where a folder should be")
    load_once(root, tmp_path / "cache")


def test_cache_folder_follows_the_platform():
    assert str(default_cache_folder({"XDG_CACHE_HOME": "/x", "HOME": "/h"})) == "/x/forebay"
    assert str(default_cache_folder({"HOME": "/h"})) == "/h/.cache/forebay"
    assert default_cache_folder({}) is None


def test_only_cuda_pads_to_captured_sizes():
    assert measured_sizes(12) == (1, 2, 4, 8, 12)
    assert executed_sizes("cuda", 12) == (1, 2, 4, 8, 12)
    assert executed_sizes("cpu", 12) == tuple(range(1, 13))
