from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Placement(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PLACEMENT_UNSPECIFIED: _ClassVar[Placement]
    PLACEMENT_MOVABLE: _ClassVar[Placement]
    PLACEMENT_LEAVING: _ClassVar[Placement]
    PLACEMENT_STAYS: _ClassVar[Placement]
    PLACEMENT_LOCAL: _ClassVar[Placement]
PLACEMENT_UNSPECIFIED: Placement
PLACEMENT_MOVABLE: Placement
PLACEMENT_LEAVING: Placement
PLACEMENT_STAYS: Placement
PLACEMENT_LOCAL: Placement

class ListStreamsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListStreamsResponse(_message.Message):
    __slots__ = ("streams", "count", "inference_streams")
    STREAMS_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    INFERENCE_STREAMS_FIELD_NUMBER: _ClassVar[int]
    streams: _containers.RepeatedCompositeFieldContainer[OpenStream]
    count: int
    inference_streams: int
    def __init__(self, streams: _Optional[_Iterable[_Union[OpenStream, _Mapping]]] = ..., count: _Optional[int] = ..., inference_streams: _Optional[int] = ...) -> None: ...

class OpenStream(_message.Message):
    __slots__ = ("stream_id", "model", "model_version", "placement", "load", "age_s", "frames", "has_state", "is_resumed", "front_end")
    STREAM_ID_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
    PLACEMENT_FIELD_NUMBER: _ClassVar[int]
    LOAD_FIELD_NUMBER: _ClassVar[int]
    AGE_S_FIELD_NUMBER: _ClassVar[int]
    FRAMES_FIELD_NUMBER: _ClassVar[int]
    HAS_STATE_FIELD_NUMBER: _ClassVar[int]
    IS_RESUMED_FIELD_NUMBER: _ClassVar[int]
    FRONT_END_FIELD_NUMBER: _ClassVar[int]
    stream_id: str
    model: str
    model_version: str
    placement: Placement
    load: float
    age_s: float
    frames: int
    has_state: bool
    is_resumed: bool
    front_end: int
    def __init__(self, stream_id: _Optional[str] = ..., model: _Optional[str] = ..., model_version: _Optional[str] = ..., placement: _Optional[_Union[Placement, str]] = ..., load: _Optional[float] = ..., age_s: _Optional[float] = ..., frames: _Optional[int] = ..., has_state: bool = ..., is_resumed: bool = ..., front_end: _Optional[int] = ...) -> None: ...

class MoveStreamsRequest(_message.Message):
    __slots__ = ("count",)
    COUNT_FIELD_NUMBER: _ClassVar[int]
    count: int
    def __init__(self, count: _Optional[int] = ...) -> None: ...

class MoveStreamsResponse(_message.Message):
    __slots__ = ("asked",)
    ASKED_FIELD_NUMBER: _ClassVar[int]
    asked: int
    def __init__(self, asked: _Optional[int] = ...) -> None: ...
