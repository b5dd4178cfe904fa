"""The command line of the bare servers, the same for each so that they can be exchanged."""

import argparse


def read_options(module: str, description: str | None) -> argparse.Namespace:
    """Return `listen` (addresses) and `hand_over`. Raises SystemExit for a command line that is wrong."""
    parser = argparse.ArgumentParser(prog=f"python -m {module}", description=description)
    parser.add_argument("listen", nargs="+", metavar="LISTEN", help="address: host:port or unix:PATH; port 0 is any")
    parser.add_argument("--hand-over", action="store_true", help="a second thread makes the answers")
    return parser.parse_args()
