"""A process that takes one core and gives nothing: the neighbour that a disturbed measurement has.

It ends by itself after the seconds it was given, so that nothing is left of a measurement that was killed.
"""

import argparse
import os
import time


def main() -> None:
    """Spin."""
    parser = argparse.ArgumentParser(prog="python -m forebay_server.bench.hog", description=__doc__)
    parser.add_argument("core", type=int, help="to stay on")
    parser.add_argument("seconds", type=float, help="until it ends by itself")
    given = parser.parse_args()
    os.sched_setaffinity(0, {given.core})
    end_s = time.monotonic() + given.seconds
    while time.monotonic() < end_s:
        pass


if __name__ == "__main__":
    main()
