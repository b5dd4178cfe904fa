"""Lets `python -m forebay_server.loadtest` do what `forebay load` does."""

from forebay_server.loadtest.cli import main

main()
