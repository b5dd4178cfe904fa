"""What is being received: how much of it, for how long, and whose it is."""
