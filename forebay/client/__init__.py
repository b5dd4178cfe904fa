"""The client's parts; `forebay` and `forebay.aio` are the public names.

A frame's way: encode (checks and copies it) -> ledger (queues it, tracks it in flight, accounts for its result) -> link
(the sequence of calls that carry one stream) -> result. Only `channel` and `link` import grpc.
"""
