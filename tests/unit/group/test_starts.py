"""The one line of a group whose processes cannot be started."""

import errno
import os

import pytest

from forebay_server.service.group.starts import REMEDIES, GroupError


@pytest.mark.parametrize("number", [*REMEDIES, errno.EPERM])
def test_a_process_that_cannot_be_started_is_named_with_a_remedy(number):
    error = GroupError.of_start(OSError(number, os.strerror(number)))
    expected = f"cannot start a process of the server: {os.strerror(number)}"
    remedy = REMEDIES.get(number)
    assert str(error) == (f"{expected}; {remedy}" if remedy else expected)


def test_a_lack_of_descriptors_says_which_limit_to_raise():
    assert "ulimit -n" in str(GroupError.of_start(OSError(errno.EMFILE, "Too many open files")))
