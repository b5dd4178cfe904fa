"""`python -m forebay_server.service.cli.as_group_process PID ROLE FD`: a process of a group.

Started by `service.group.starts`, with its settings in the environment. Ends with its parent PID. FD is a socket to it.

    engine        runs the models
    fork-server   makes front-end processes, which speak to clients
"""

import os
import signal
import socket
import sys

from forebay_server.service.child import bind_to_parent
from forebay_server.service.cli.serve import run_process
from forebay_server.service.group.fork_server import wait_for_order
from forebay_server.service.group.starts import ROLE_ENGINE, ROLE_FORK_SERVER
from forebay_server.service.ready import STANDARD_OUTPUT
from forebay_server.service.settings import ServeSettings, load_settings
from forebay_server.service.tuning import tune_process


def main(arguments: list[str]) -> int:
    """Run the process until it is stopped, and return the exit code."""
    parent_pid, role, descriptor, *options = arguments
    run = run_engine if role == ROLE_ENGINE else run_fork_server
    return run(int(parent_pid), int(descriptor), is_debug="--debug" in options)


def run_engine(parent_pid: int, descriptor: int, *, is_debug: bool) -> int:
    """Be the engine process."""
    bind_to_parent(parent_pid, signal.SIGTERM)

    def run(settings: ServeSettings) -> int:
        from forebay_server.service.group.engine_server import serve_engine

        return serve_engine(settings, descriptor)

    return run_process(load_settings({}, None, os.environ).values, run, is_debug=is_debug)


def run_fork_server(parent_pid: int, descriptor: int, *, is_debug: bool) -> int:
    """Be the fork server, and each of the front-end processes that it makes."""
    settings = load_settings({}, None, os.environ).values
    tuning = tune_process()
    from forebay_server.service.group.front_end_server import serve_front_end

    os.write(STANDARD_OUTPUT, f"{ROLE_FORK_SERVER}\n".encode())
    order = wait_for_order(socket.socket(fileno=descriptor), parent_pid)
    if order is None:
        return 0
    index, data, talk = order
    own = settings if index == 0 else settings.model_copy(update={"uds": None})
    return run_process(own, lambda settings: serve_front_end(settings, index, data, talk), tuning, is_debug=is_debug)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
