"""Load generator and measurements from the outside: sees the server through its wire only.

It offers frames to a server at instants fixed beforehand (open loop), records for every frame when it should
have left, when it left, when its answer came and what the answer said, and reports latencies together with how
far they can be trusted. It does not know models, engines or the inside of any server.

Reading order: scenario, arrivals, pacer, target (client), generator, recorder, accounting, quantiles, steady,
summary, verdict, report.
"""
