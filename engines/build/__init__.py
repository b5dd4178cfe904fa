"""Preparation of models: TensorRT plans from ONNX, FP16 and INT8, inspection, verification, profiles.

Not in service: used by `forebay engine` and when a plan is rebuilt at load. Needs the extra `build` (onnx).
"""
