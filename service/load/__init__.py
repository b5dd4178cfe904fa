"""How loaded a server is, and whether it asks streams to go to other servers because of it."""
