"""The parts of `engines.engine_torch`: model files, and where tensors lie."""
