"""The client's parts; `forebay` and `forebay.aio` are the public names.

A frame's way: encode (checks and copies it) -> ledger (queues it, tracks it in flight, accounts for its result) -> link
(the sequence of calls that carry one stream) -> result. Only `channel` and `link` import grpc.
"""

import os

# By default gRPC starts its threads again in a child of a fork. They end the child by SIGSEGV in one of three forks,
# even if the child never uses gRPC (ADR 0232). Clients of this library refuse to work in such a child (`forks`).
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")  # before the first import of grpc, which reads it
