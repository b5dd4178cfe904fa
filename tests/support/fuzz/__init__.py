"""Random messages of both protocols and random pictures against a real server in a separate process.

`mutation` changes any message by its descriptor; `frames`, `pictures` and `inference` each have one kind of
conversation and the conditions on its answers; `campaign` runs many of them. Everything follows from a seed.
"""
