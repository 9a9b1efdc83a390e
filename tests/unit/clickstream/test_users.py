"""Ids of users: whole numbers, whose text is key and JSON."""

import pytest

from dataflow.clickstream.users import parse_user, user_json, user_of


@pytest.mark.parametrize("number", [0, -7, 2**64])
def test_a_user_is_the_text_of_its_id(number):
    assert user_json(user_of(number)) == user_of(number) == str(number).encode()


@pytest.mark.parametrize(("text", "user"), [("7", b"7"), ("007", b"7"), ("-0", b"0"), ("9" * 4299, b"9" * 4299)])
def test_a_typed_id_is_normalised(text, user):
    assert parse_user(text) == user


@pytest.mark.parametrize("text", ["", "a", "1.5", "+1", " 1", "٣", "9" * 4301])
def test_a_text_that_is_no_id_is_refused(text):
    with pytest.raises(ValueError, match=r"^not a whole number: "):
        parse_user(text)
