"""Slots, the three stage threads of a lane, and the memory of requests. Read `pipeline`, then `inline_runner`."""
