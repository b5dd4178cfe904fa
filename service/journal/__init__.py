"""What happened: events of streams, frames and batches, counters, pictures. Below everything that records."""
