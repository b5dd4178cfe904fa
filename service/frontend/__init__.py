"""gRPC front ends: servicers, codecs, sessions, admission, decoding, the event-loop side of everything."""
