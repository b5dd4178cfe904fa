"""Load generator and measurements from the outside: sees the server through its wire only.

It offers frames to a server at times fixed beforehand (open loop), records for every frame its due time, its actual
send time, the arrival of its answer and the content of the answer, and reports latencies with confidence intervals. It
does not know models, engines or the inside of any server.

Reading order: scenario, arrivals, pacer, target (client), generator, recorder, accounting, quantiles, steady, summary,
verdict, report.
"""
