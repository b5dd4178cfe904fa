"""The two forms of a server in a test's process: all parts in one, or a front end before an engine over sockets.

The second form runs the engine process's and a front-end process's parts on the test's own loop, with the sockets, the
shared memory and the messages between them that two processes have. The front end is the second of two, so that no
offset is 0 by chance; the other one never comes. Tests reach into devices, lanes and sessions as in the first form.

tests/rpc/conftest.py runs tests in both forms; tests about several processes start them (`serve_process`).
"""

from forebay_server.service.server import Server

ONE_PROCESS, FRONT_END = "one process", "front-end process"
PROCESSES = 2  # front-end processes, where tests start real ones
current = ONE_PROCESS  # set by a fixture


def make_server(settings, **parts):
    """A server in the form of the present test."""
    if current == ONE_PROCESS:
        return Server(settings, **parts)
    from tests.support.front_end_before_engine import FrontEndBeforeEngine

    return FrontEndBeforeEngine(settings, **parts)
