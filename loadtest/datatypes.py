"""Size of an element of each datatype, except BYTES, whose elements differ in size."""

ITEM_BYTES = {
    **dict.fromkeys(("BOOL", "UINT8", "INT8"), 1),
    **dict.fromkeys(("FP16", "BF16", "UINT16", "INT16"), 2),
    **dict.fromkeys(("FP32", "UINT32", "INT32"), 4),
    **dict.fromkeys(("FP64", "UINT64", "INT64"), 8),
}
