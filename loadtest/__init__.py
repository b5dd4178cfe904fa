"""Load generator and measurements from the outside: sees the server through its wire only."""
