"""Streams of frames: forebay.v1."""
