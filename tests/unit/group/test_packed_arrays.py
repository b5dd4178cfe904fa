"""Arrays of all shapes and types are read from shared memory as they were written; torn ones are an error."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from forebay_server.service.group.packed_arrays import bytes_in, pack, shapes_in, unpack

KINDS = ("f4", "u1", "i8", "?", "O")
SHAPES = st.lists(st.integers(0, 4), max_size=3).map(tuple)


@st.composite
def arrays(draw):
    found, dtypes = [], []
    for _ in range(draw(st.integers(0, 4))):
        dtype = np.dtype(draw(st.sampled_from(KINDS)))
        dtypes.append(dtype)
        shape = draw(SHAPES)
        if draw(st.booleans()) and len(found) % 2:
            found.append(None)
        elif dtype == np.dtype(object):
            array = np.empty(int(np.prod(shape)), object)
            array[:] = draw(st.lists(st.text(max_size=5), min_size=array.size, max_size=array.size))
            found.append(array.reshape(shape))
        else:
            size = int(np.prod(shape))
            values = draw(st.lists(st.integers(0, 100), min_size=size, max_size=size))
            array = np.array(values, dtype).reshape(shape)
            found.append(np.asfortranarray(array) if draw(st.booleans()) else array)
    return found, dtypes


@given(arrays(), st.integers(0, 200))
def test_arrays_are_read_as_they_were_written(given_arrays, slack):
    found, dtypes = given_arrays
    packed = pack(found, dtypes)
    memory = memoryview(bytearray(b"\xff" * (packed.nbytes + slack)))
    packed.write(memory)
    read = unpack(memory, dtypes)
    for array, back, dtype in zip(found, read, dtypes, strict=True):
        if array is None:
            assert back is None
            continue
        assert (back.shape, back.dtype) == (array.shape, dtype)
        np.testing.assert_array_equal(back, array)
    assert shapes_in(memory) == [None if array is None else array.shape for array in found]
    assert bytes_in(memory) <= packed.nbytes
    assert memory[packed.nbytes :] == b"\xff" * slack


def test_numbers_are_views_that_cannot_be_written_through():
    array = np.arange(6, dtype=np.float32)
    packed = pack([array], [array.dtype])
    memory = memoryview(bytearray(packed.nbytes))
    packed.write(memory)
    (view,) = unpack(memory, [array.dtype])
    assert not view.flags.writeable
    memory[packed.offsets[0] : packed.offsets[0] + 4] = np.float32(9).tobytes()
    assert view[0] == 9


def test_numbers_of_another_type_are_written_as_the_model_s():
    packed = pack([np.array([1.0, 2.0])], [np.dtype(np.float32)])
    memory = memoryview(bytearray(packed.nbytes))
    packed.write(memory)
    (read,) = unpack(memory, [np.dtype(np.float32)])
    assert (read.dtype, read.tolist()) == (np.float32, [1.0, 2.0])


@pytest.mark.parametrize("word", [0, 1, 2, 3])
@pytest.mark.parametrize("value", [1 << 40, -7, 1 << 62])
def test_a_head_that_is_torn_is_found_out(word, value):
    array = np.arange(6, dtype=np.float32)
    packed = pack([array], [array.dtype])
    memory = memoryview(bytearray(packed.nbytes))
    packed.write(memory)
    memory[8 * word : 8 * word + 8] = value.to_bytes(8, "little", signed=True)
    with pytest.raises(ValueError, match=r"arrays|size|shape"):
        unpack(memory, [array.dtype])
