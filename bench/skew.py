"""How unevenly the kernel deals connections out to processes that share a port: `python -m forebay_server.bench.skew`.

Plain sockets, no server: the kernel chooses by a hash of the connection's addresses, so that any listener will do. It
prints the largest share of a process over an even share, median and worst of the rounds, and how often a process gets
no connection at all.
"""

import argparse
import socket
import statistics
from collections.abc import Sequence
from contextlib import ExitStack

PROCESSES = (2, 4, 5, 8)
CONNECTIONS = (4, 8, 16, 32, 64, 128)
ROUNDS = 40


def deal(processes: int, connections: int) -> list[int]:
    """Return how many of the connections each of the listeners got."""
    with ExitStack() as stack:
        listeners: list[socket.socket] = []
        place = ("127.0.0.1", 0)
        for _ in range(processes):
            listener = stack.enter_context(socket.socket())
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            listener.bind(place)
            listener.listen(connections)
            listener.setblocking(False)  # noqa: FBT003 - the standard library's signature
            place = listener.getsockname()
            listeners.append(listener)
        for _ in range(connections):
            stack.enter_context(socket.create_connection(place))
        return [_accepted(listener, stack) for listener in listeners]


def _accepted(listener: socket.socket, stack: ExitStack) -> int:
    count = 0
    while True:
        try:
            stack.enter_context(listener.accept()[0])
        except BlockingIOError:
            return count
        count += 1


def line_of(processes: int, connections: int, rounds: Sequence[Sequence[int]]) -> str:
    """Return a row of the table."""
    even = connections / processes
    shares = [max(counts) / even for counts in rounds]
    idle = sum(min(counts) == 0 for counts in rounds) / len(rounds)
    return f"| {processes} | {connections} | {statistics.median(shares):.2f} | {max(shares):.2f} | {idle:.0%} |"


def main() -> None:
    """Deal connections out again and again, and print a table."""
    parser = argparse.ArgumentParser(prog="python -m forebay_server.bench.skew", description=__doc__)
    parser.add_argument("--processes", type=int, nargs="+", default=PROCESSES)
    parser.add_argument("--connections", type=int, nargs="+", default=CONNECTIONS)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    given = parser.parse_args()
    print("| processes | connections | largest share over an even one | worst round | a process without any |")
    print("| --- | --- | --- | --- | --- |")
    for processes in given.processes:
        for connections in given.connections:
            print(line_of(processes, connections, [deal(processes, connections) for _ in range(given.rounds)]))


if __name__ == "__main__":
    main()
