"""Models as real exporters write them, served by `forebay serve FILE`, against the exporters' own predictions.

`make test-exporters` makes .venv-exporters, with the exporters alone: their code runs in processes of its own.
"""
