"""The parts of the simulated device, each without the others: clocks, access log, schedule, faults.

`engines.device_simulated` puts them together; the rest of the project opens that.
"""
