"""Errors below the service. The pipeline translates these into the service's own errors in one place."""


class EngineError(Exception):
    """Base of all errors that a device or an engine raises on purpose; never raised itself."""

    def __init__(self, message: str) -> None:
        if type(self) is EngineError:
            raise TypeError("raise one of EngineError's subclasses")
        super().__init__(message)


class ModelFileError(EngineError):
    """The model file is missing, broken, or unsupported by this engine. Found at load, never in service."""


class BackendUnavailableError(EngineError):
    """The library or the hardware that this engine or device needs is missing. The message says what to install."""


class DeviceMemoryError(EngineError):
    """An allocation does not fit. Raised at start-up only, because service allocates no memory."""


class ExecutionError(EngineError):
    """One batch failed; the device and the engine are still healthy."""


class RunMemoryError(ExecutionError):
    """A run needs more memory than there is."""


class DeviceLostError(EngineError):
    """The device is in a permanent error (a sticky CUDA error): the process has to end."""


class RaceError(EngineError):
    """Simulated device only: an access that is not ordered after an earlier conflicting one."""


class MisuseError(EngineError):
    """A caller broke a contract of this package: a foreign buffer, a closed handle. A bug in Forebay."""
