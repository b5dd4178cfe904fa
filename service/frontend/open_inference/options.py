"""Parameters of an inference request: Triton's and Forebay's. Pure.

priority (0: the model's default), timeout (µs), sequence_id, sequence_start, sequence_end, and
triton_enable_empty_final_response are Triton's. Forebay's: `latency_budget_ms` (a deadline), `delivery` (`every`, or
`latest`: a newer request of the stream replaces the waiting one) and `stream` (names the stream for order and fairness,
as sequence_id does). Other keys are ignored, as a backend ignores unknown ones; keys that begin with `triton_` are
refused.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from forebay.wire import inference_pb2 as pb
from forebay_server.service.errors import InvalidRequestError
from forebay_server.service.request import Delivery

MAX_BUDGET_MS = 3_600_000.0  # an hour: anything longer is a mistake in the unit
MAX_KEY_CHARACTERS = 256
EMPTY_FINAL_RESPONSE = "triton_enable_empty_final_response"
RESERVED = (
    "parameter keys starting with 'triton_' are reserved for Triton usage. Only the following keys starting with "
    f"'triton_' are allowed: {EMPTY_FINAL_RESPONSE}"
)
_TYPES: dict[str, tuple[str, ...]] = {
    "priority": ("int64_param", "uint64_param"),
    "timeout": ("int64_param",),
    "sequence_id": ("int64_param", "uint64_param", "string_param"),
    "sequence_start": ("bool_param",),
    "sequence_end": ("bool_param",),
    EMPTY_FINAL_RESPONSE: ("bool_param",),
    "latency_budget_ms": ("double_param", "int64_param", "uint64_param"),
    "delivery": ("string_param",),
    "stream": ("string_param",),
}


@dataclass(frozen=True, slots=True)
class CallOptions:
    """Options of one request.

    Attributes:
        priority: 1 is the most urgent; 0 for the model's default.
        timeout_ns: longest time in the queue; 0 for none.
        budget_ns: latency budget; None for none.
        delivery: EVERY by default.
        stream: key of the stream within its RPC or its client; empty for none.
    """

    priority: int = 0
    timeout_ns: int = 0
    budget_ns: int | None = None
    delivery: Delivery = Delivery.EVERY
    stream: str = ""


DEFAULTS = CallOptions()


def read_options(parameters: Mapping[str, pb.InferParameter]) -> CallOptions:
    """Return the options. Raises InvalidRequestError for a wrong type, a value out of range or a reserved key."""
    values: dict[str, bool | int | float | str] = {}
    for key, parameter in parameters.items():
        types = _TYPES.get(key)
        if types is not None:
            values[key] = value_of(parameter, types, key)
        elif key.startswith("triton_"):
            raise InvalidRequestError(RESERVED)
    if not values:
        return DEFAULTS
    return CallOptions(
        priority=_natural(values, "priority"),
        timeout_ns=_natural(values, "timeout") * 1000,
        budget_ns=_budget_ns(values),
        delivery=_delivery(values),
        stream=_stream(values),
    )


def value_of(parameter: pb.InferParameter, types: tuple[str, ...], key: str) -> bool | int | float | str:
    """Return the value of a parameter of one of `types`. Raises InvalidRequestError for another type."""
    choice = parameter.WhichOneof("parameter_choice")
    if choice not in types:
        raise InvalidRequestError(f"invalid value type for '{key}' parameter, expected {' or '.join(types)}.")
    value: bool | int | float | str = getattr(parameter, choice)
    return value


def _natural(values: Mapping[str, bool | int | float | str], key: str) -> int:
    number = int(values.get(key, 0))
    if number < 0:
        raise InvalidRequestError(f"parameter '{key}' is {number}; it must be at least 0")
    return number


def _budget_ns(values: Mapping[str, bool | int | float | str]) -> int | None:
    budget_ms = values.get("latency_budget_ms")
    if budget_ms is None:
        return None
    if not 0 <= float(budget_ms) <= MAX_BUDGET_MS:  # false for NaN as well
        raise InvalidRequestError(f"parameter 'latency_budget_ms' is {budget_ms}; give 0 to {MAX_BUDGET_MS:g}")
    return int(float(budget_ms) * 1e6)


def _delivery(values: Mapping[str, bool | int | float | str]) -> Delivery:
    name = values.get("delivery", "every")
    if name not in ("every", "latest"):
        raise InvalidRequestError(f"parameter 'delivery' is {str(name)[:20]!r}; give 'every' or 'latest'")
    return Delivery(name)


def _stream(values: Mapping[str, bool | int | float | str]) -> str:
    key = str(values.get("stream") or values.get("sequence_id") or "")
    if len(key) > MAX_KEY_CHARACTERS:
        raise InvalidRequestError(f"parameter 'stream' has {len(key)} characters; at most {MAX_KEY_CHARACTERS}")
    return key
