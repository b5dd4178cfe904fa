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
        for _ in server.ready.get(
            "processes", [server.ready]
        ):  # of two signals that wait the later one is handled first
            assert '"least": "info"' in await server.error_line()
        assert await server.end() == 0
    assert "stopping" in server.errors
    assert "model loaded" not in server.errors
