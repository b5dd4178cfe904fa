"""Lets `python -m loadtest` do what `forebay load` does."""

from loadtest.cli import main

main()
