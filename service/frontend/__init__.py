"""The gRPC front end: servicers, codecs, sessions, admission, decoding, and the event loop's side of all parts."""
