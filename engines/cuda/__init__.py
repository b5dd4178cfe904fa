"""The parts of `engines.device_cuda`: calls and their errors, and the handles that a device makes."""
