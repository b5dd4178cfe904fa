"""Frames that are access units of H.264 or H.265: one decoder a stream, and each unit gets its own picture's result.

`access_unit` reads the kind of a unit, `order` decides whether it is decoded, `codec` decodes, `planes` brings a
picture to the model's size and colours, and `decoder` does all of this on a worker. docs/video.md describes it for
users, ADR 0210 gives the reasons.
"""
