"""SIGUSR1 and SIGUSR2 to a server process."""

import signal

from tests.support.loops import on_loop
from tests.support.real_server import simulated
from tests.support.serve_process import serve


@on_loop
async def test_signals_make_a_running_server_log_less_and_more(tmp_path):
    async with serve("--model-repository", simulated(tmp_path), "--log-level", "warning") as server:
        await server.wait_ready()
        server.signal(signal.SIGUSR1)  # to info
        assert await server.end() == 0
    assert '"least": "info"' in server.errors
    assert "stopping" in server.errors
    assert "model loaded" not in server.errors
