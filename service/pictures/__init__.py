"""Pictures as a model takes them: size, colours, values, and where a frame's pixels go. Values and pure functions."""
