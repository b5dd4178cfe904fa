"""Errors about shared memory, with Triton's messages where it has some: clients match on them. Pure."""

import grpc

from forebay_server.service.frontend.open_inference.errors import InferenceError

MAX_NAME_SHOWN = 256


def unknown(kind: str, name: str, hint: str = "") -> InferenceError:
    """Return the error for a missing region. Args: kind: `system ` or `cuda ` where Triton names it."""
    shown = name[:MAX_NAME_SHOWN]
    return InferenceError(grpc.StatusCode.NOT_FOUND, f"Unable to find {kind}shared memory region: '{shown}'{hint}")


def too_many(message: str) -> InferenceError:
    """Return an error for a limit that is reached."""
    return InferenceError(grpc.StatusCode.RESOURCE_EXHAUSTED, message)


def no_descriptor() -> InferenceError:
    """Return the error for an object that cannot be opened because the process has no descriptor left."""
    return too_many("the server has no file descriptor left for shared memory: unregister some, or try again later")


def invalid(message: str) -> InferenceError:
    """Return an error of the request itself."""
    return InferenceError(grpc.StatusCode.INVALID_ARGUMENT, message)


def out_of_range(name: str) -> InferenceError:
    """Return the error for a range that a region does not have."""
    return invalid(f"Invalid offset + byte size for shared memory region: '{name}'")


def bad_registration(name: str, why: str) -> InferenceError:
    """Return the error for a region that contradicts its registration."""
    return invalid(f"failed to register shared memory region '{name}': invalid args, {why}")


def disabled() -> InferenceError:
    """Return the error for all calls but status while shared memory is off."""
    return InferenceError(
        grpc.StatusCode.UNIMPLEMENTED,
        "Client shared memory is disabled. Start the server with '--allow-client-shm' to enable.",
    )
