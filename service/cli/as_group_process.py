"""`python -m forebay_server.service.cli.as_group_process PID ROLE INDEX FD...`: one process of a group.

Started by `service.group.parent`, with its settings in the environment. Ends with its parent PID.

    engine INDEX CONTROL        runs the models; INDEX is 0
    front-end INDEX DATA TALK   speaks to clients
"""

import os
import signal
import sys

from forebay_server.service.child import bind_to_parent
from forebay_server.service.cli.serve import run_process
from forebay_server.service.group.parent import ROLE_ENGINE
from forebay_server.service.settings import ServeSettings, load_settings


def main(arguments: list[str]) -> int:
    """Run the process until it is stopped, and return the exit code."""
    is_debug = "--debug" in arguments
    role, index, *descriptors = [argument for argument in arguments if argument != "--debug"]
    settings = load_settings({}, None, os.environ).values
    numbers = [int(each) for each in descriptors]

    def run_engine(settings: ServeSettings) -> int:
        from forebay_server.service.group.engine_server import serve_engine

        return serve_engine(settings, *numbers)

    def run_front_end(settings: ServeSettings) -> int:
        from forebay_server.service.group.front_end_server import serve_front_end

        return serve_front_end(settings, int(index), *numbers)

    return run_process(settings, run_engine if role == ROLE_ENGINE else run_front_end, is_debug=is_debug)


if __name__ == "__main__":
    bind_to_parent(int(sys.argv[1]), signal.SIGTERM)
    sys.exit(main(sys.argv[2:]))
