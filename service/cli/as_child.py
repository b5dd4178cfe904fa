"""`python -m forebay_server.service.cli.as_child PID ARGUMENTS` is `forebay ARGUMENTS`, but ends with its parent PID.

For processes that start a server of their own: `service.child.command_of_child` builds the command.
"""

import signal
import sys

from forebay_server.service.child import bind_to_parent
from forebay_server.service.cli import main

if __name__ == "__main__":
    bind_to_parent(int(sys.argv.pop(1)), signal.SIGTERM)
    main()
