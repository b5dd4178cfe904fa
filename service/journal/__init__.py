"""Records of the data path: events of streams, frames and batches, counters, pictures.

Below all packages that write them.
"""
