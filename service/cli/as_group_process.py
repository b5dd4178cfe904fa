"""`python -m forebay_server.service.cli.as_group_process PID ROLE FD [INDEX COUNT FD]`: a process of a group.

Started by `service.group.starts`, with its settings in the environment. Ends with its parent PID. FD is a socket to it.

    engine        runs the models; of several it is number INDEX of COUNT, and FD is the file of the permits
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
    parent_pid, role, descriptor, *rest = arguments
    is_debug = "--debug" in rest
    if role == ROLE_ENGINE:
        numbers = [int(each) for each in rest if each.isdigit()]
        return run_engine(int(parent_pid), int(descriptor), numbers, is_debug=is_debug)
    return run_fork_server(int(parent_pid), int(descriptor), is_debug=is_debug)


def run_engine(parent_pid: int, descriptor: int, numbers: list[int], *, is_debug: bool) -> int:
    """Be an engine process; of several, `numbers` are index, count, and descriptor of the file of the permits."""
    bind_to_parent(parent_pid, signal.SIGTERM)

    def run(settings: ServeSettings) -> int:
        from forebay_server.service.group.engine_server import serve_engine

        if not numbers:
            return serve_engine(settings, descriptor)
        from forebay_server.service.group.memory_file import MemoryFile
        from forebay_server.service.models.instances import Part

        index, count, permits_fd = numbers
        return serve_engine(settings, descriptor, Part(index, count), MemoryFile.attach(permits_fd))

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
    index, sockets = order
    own = settings if index == 0 else settings.model_copy(update={"uds": None})
    return run_process(own, lambda settings: serve_front_end(settings, index, *sockets), tuning, is_debug=is_debug)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
