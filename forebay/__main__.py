"""`python -m forebay` is the command line, where it is installed: it comes with the server, not with the client."""

import importlib.util
import runpy
import sys

COMMAND_LINE = "forebay_server"


def main() -> None:
    """Run the command line, or print the distribution that contains it."""
    if importlib.util.find_spec(COMMAND_LINE) is None:
        sys.exit("forebay: this is the client library; the command line comes with the server: pip install forebay")
    runpy.run_module(COMMAND_LINE, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
