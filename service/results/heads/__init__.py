"""Heads: the outputs of each family of detectors, and how candidate boxes are read from them.

A head is a frozen dataclass with the numbers that its family needs and one pure method `candidates`. All that comes
after is the same for every head and lies in `service.results`.
"""
