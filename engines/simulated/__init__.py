"""The parts of the simulated device, each without the others: clocks, access log, schedule, faults.

`engines.device_simulated` puts them together and is what the rest of the project opens.
"""
