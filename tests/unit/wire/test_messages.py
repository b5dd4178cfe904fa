"""Every message keeps what is in it, as bytes, JSON and text. tests/heavy runs this on other versions of protobuf."""

import pytest
from google.protobuf import json_format, text_format

from tests.support.wire import filled, message_classes

every_message = pytest.mark.parametrize("kind", message_classes(), ids=lambda kind: kind.DESCRIPTOR.full_name)


@every_message
def test_a_message_survives_bytes(kind):
    message = filled(kind)
    data = message.SerializeToString(deterministic=True)
    assert bool(data) == bool(kind.DESCRIPTOR.fields)
    assert kind.FromString(data) == message


@every_message
def test_a_message_survives_json(kind):
    message = filled(kind)
    assert json_format.Parse(json_format.MessageToJson(message), kind()) == message


@every_message
def test_a_message_survives_text(kind):
    message = filled(kind)
    assert text_format.Parse(text_format.MessageToString(message), kind()) == message
