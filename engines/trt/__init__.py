"""The parts of `engines.engine_tensorrt`: the library and its log, plans and their manifests, execution contexts."""
