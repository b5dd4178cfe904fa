"""One message of the size that is allowed always has room, where no other is there."""

import pytest

from forebay_server.service.frontend.open_inference.tensors import MAX_STRINGS
from forebay_server.service.pipeline.unbound import STRING_BYTES
from tests.support.version import workshop_of


@pytest.mark.parametrize("message_bytes", [1024, 16 << 20, 1 << 30, 2**31 - 1])
def test_what_all_requests_of_a_version_may_hold_is_at_least_one_message(tmp_path, message_bytes):
    with workshop_of(tmp_path) as opened:
        context = opened.context(message_bytes=message_bytes)
        assert context.unbound_bytes >= message_bytes + MAX_STRINGS * STRING_BYTES
        assert context.rows_bytes >= 2 * message_bytes  # rows are in a buffer for a power of two of them
