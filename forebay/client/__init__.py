"""The client's parts; `forebay` and `forebay.aio` are the public names.

A frame's way: encode (checks and copies it) -> ledger (waits, is sent, is answered: every frame is accounted for) ->
link (the calls, one after the other, that carry one stream) -> result. Only `channel` and `link` import grpc.
"""
