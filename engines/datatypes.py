"""Tensor element types by the names of the Open Inference Protocol, and the numpy dtypes that hold them."""

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np

BF16 = np.dtype([("bfloat16", "<u2")])
"""bfloat16, which numpy lacks: the raw bits. No code here computes with them."""
DTYPE_BY_NAME: Mapping[str, np.dtype[np.generic]] = MappingProxyType(
    {
        "BOOL": np.dtype(np.bool_),
        "UINT8": np.dtype(np.uint8),
        "UINT16": np.dtype(np.uint16),
        "UINT32": np.dtype(np.uint32),
        "UINT64": np.dtype(np.uint64),
        "INT8": np.dtype(np.int8),
        "INT16": np.dtype(np.int16),
        "INT32": np.dtype(np.int32),
        "INT64": np.dtype(np.int64),
        "FP16": np.dtype(np.float16),
        "BF16": BF16,
        "FP32": np.dtype(np.float32),
        "FP64": np.dtype(np.float64),
        "BYTES": np.dtype(object),
    }
)
NAME_BY_DTYPE: Mapping[np.dtype[np.generic], str] = MappingProxyType(
    {dtype: name for name, dtype in DTYPE_BY_NAME.items()}
)
