"""Changes to a protobuf message that leave its shape valid: fields take extreme values, appear twice, or go.

Works on any message by its descriptor, so that a field added to a protocol is tried without a change here.
"""

from google.protobuf.descriptor import FieldDescriptor as Field

FLOATS = (0.0, -0.0, 1.0, -1.0, 0.5, 1e-320, 1e308, -1e308, float("inf"), float("-inf"), float("nan"), 5000.0)
TEXTS = ("", "1", "-1", "0", "x", "sim", "nobody", "..\\sim", "ä\n\x1b[2J", "%s{}", "\u2028", "z" * 300, "n" * 5000)
BLOBS = (b"", b"x", b"\xff" * 8, bytes(64), bytes(65), bytes(4096), b"\1\0\0\0a", b"\xff\xff\xff\xff")
BITS = {Field.CPPTYPE_INT32: (True, 32), Field.CPPTYPE_INT64: (True, 64)}
BITS |= {Field.CPPTYPE_UINT32: (False, 32), Field.CPPTYPE_UINT64: (False, 64)}
MOST_REPEATS = 8


def mutate(message, rng, changes):
    """Make so many changes to a message, somewhere in its tree."""
    for _ in range(changes):
        _change(message, rng)


def _change(message, rng):
    fields = message.DESCRIPTOR.fields
    if not fields:
        return
    present = [field for field, _ in message.ListFields()]
    field = rng.choice(present) if present and rng.random() < 0.7 else rng.choice(fields)
    if rng.random() < 0.1:
        message.ClearField(field.name)
    elif field.message_type is not None and field.message_type.GetOptions().map_entry:
        _change_map(getattr(message, field.name), field.message_type, rng)
    elif field.is_repeated:
        _change_repeated(getattr(message, field.name), field, rng)
    elif field.cpp_type == Field.CPPTYPE_MESSAGE:
        inner = getattr(message, field.name)
        inner.SetInParent()
        _change(inner, rng)
    else:
        setattr(message, field.name, _value(field, rng))


def _change_map(entries, entry_type, rng):
    key = rng.choice(list(entries)) if entries and rng.random() < 0.5 else _value(entry_type.fields_by_name["key"], rng)
    value = entry_type.fields_by_name["value"]
    if value.cpp_type == Field.CPPTYPE_MESSAGE:
        _change(entries[key], rng)
    else:
        entries[key] = _value(value, rng)


def _change_repeated(values, field, rng):
    is_message = field.cpp_type == Field.CPPTYPE_MESSAGE
    choice = rng.random()
    if values and choice < 0.2:
        del values[rng.randrange(len(values))]
    elif values and choice < 0.7:
        index = rng.randrange(len(values))
        if is_message:
            _change(values[index], rng)
        else:
            values[index] = _value(field, rng)
    else:
        for _ in range(rng.choice((1, 1, 1, 2, MOST_REPEATS))):
            if not is_message:
                values.append(_value(field, rng))
            elif values:
                values.add().CopyFrom(values[0])
            else:
                _change(values.add(), rng)


def _value(field, rng):
    kind = field.cpp_type
    if kind in BITS:
        return _integer(*BITS[kind], rng)
    if kind == Field.CPPTYPE_BOOL:
        return rng.random() < 0.5
    if kind == Field.CPPTYPE_ENUM:
        return rng.choice([*(value.number for value in field.enum_type.values), 99, -1])
    if kind in (Field.CPPTYPE_DOUBLE, Field.CPPTYPE_FLOAT):
        value = rng.choice(FLOATS)
        return value if kind == Field.CPPTYPE_DOUBLE or not 3e38 < abs(value) < float("inf") else 0.25
    return rng.choice(BLOBS) if field.type == Field.TYPE_BYTES else rng.choice(TEXTS)


def _integer(is_signed, bits, rng):
    least = -(1 << (bits - 1)) if is_signed else 0
    most = least + (1 << bits) - 1
    value = rng.choice((0, 1, 2, 3, 4, 16, 255, least, most, most - 1, rng.randint(least, most), -1))
    return min(max(value, least), most)


def mutate_bytes(data, rng, edits):
    """Return bytes with some of them changed, cut out, repeated, or cut off."""
    changed = bytearray(data)
    for _ in range(edits):
        start = rng.randrange(len(changed) + 1)
        end = min(start + rng.choice((0, 1, 1, 1, 2, 4, 16, 256)), len(changed))
        choice = rng.random()
        if choice < 0.6:
            changed[start:end] = rng.randbytes(rng.choice((end - start, end - start, 1, 2)))
        elif choice < 0.8:
            changed[start:start] = changed[start:end] * rng.choice((1, 1, 3, 50))
        elif choice < 0.95:
            del changed[start:end]
        else:
            del changed[start:]
    return bytes(changed)
