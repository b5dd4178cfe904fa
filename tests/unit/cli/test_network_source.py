"""A network stream that cannot be opened: the message says what to look at."""

import pytest

from forebay_server.service.cli.packets import why_not_opened

av = pytest.importorskip("av")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("ConnectionRefusedError", "nothing listens there"),
        ("HTTPUnauthorizedError", "the user or the password is wrong"),
        ("HTTPForbiddenError", "the user or the password is wrong"),
        ("HTTPNotFoundError", "is the path right"),
        ("HTTPServerError", "is it there, and are the user and password right"),
    ],
)
def test_the_reason_is_named(name, words):
    assert words in why_not_opened(av, getattr(av, name)(1, "refused"))
