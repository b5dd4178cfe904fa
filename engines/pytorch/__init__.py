"""The parts of `engines.engine_torch`: model files, and the memory of tensors."""
