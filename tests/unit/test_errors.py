"""Every error has an outcome and a scope, and no text that a client must not see."""

import pytest

from forebay_server.service.errors import MAX_MESSAGE_CHARACTERS, InvariantError, Outcome, ServiceError
from forebay_server.service.frontend.frames import codec as codec_module


def subclasses(error_class):
    for subclass in error_class.__subclasses__():
        yield subclass
        yield from subclasses(subclass)


ALL = sorted(subclasses(ServiceError), key=lambda error_class: error_class.__name__)
IDS = [error_class.__name__ for error_class in ALL]


def test_the_base_refuses_to_be_raised():
    with pytest.raises(TypeError):
        ServiceError("anything")


def test_there_are_errors_to_walk():
    assert len(ALL) >= 15


@pytest.mark.parametrize("error_class", ALL, ids=IDS)
def test_every_error_has_an_outcome_a_scope_and_a_place_in_both_tables(error_class):
    assert isinstance(error_class.outcome, Outcome)
    assert error_class.outcome is not Outcome.OK
    assert error_class.scope in {"request", "session"}
    error = error_class("the fault and its remedy")
    assert error.retry_after_ms == 0
    assert codec_module.status_of(error).code == codec_module.FRAME_STATUS[error.outcome]
    assert error.outcome in codec_module.STREAM_STATUS


@pytest.mark.parametrize("error_class", [c for c in ALL if c is not InvariantError], ids=lambda c: c.__name__)
def test_the_message_is_the_public_text(error_class):
    error = error_class("text", retry_after_ms=5)
    assert (str(error), error.message, error.retry_after_ms) == ("text", "text", 5)


def test_a_clients_own_words_cannot_make_a_message_too_long():
    error = next(c for c in ALL if c is not InvariantError)("x" * 10**6)
    assert len(error.message) == MAX_MESSAGE_CHARACTERS


def test_an_invariant_error_keeps_its_detail_from_the_client_and_shows_it_to_the_log():
    error = InvariantError("channel former-m is full at 7")
    assert "former" not in error.message
    assert str(error) == error.detail == "channel former-m is full at 7"
