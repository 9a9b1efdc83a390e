"""Ids of users: any text or number; the text is who the user is."""

import pytest

from dataflow.clickstream.users import parse_user, user_json, user_of


@pytest.mark.parametrize("number", [0, -7, 2**64])
def test_a_user_is_the_text_of_its_id(number):
    assert user_json(user_of(number), is_text=False) == user_of(number) == str(number).encode()


def test_an_id_that_came_as_a_text_is_written_as_one():
    assert user_json(b"7", is_text=True) == b'"7"'
    assert user_json('a"é'.encode(), is_text=True) == '"a\\"é"'.encode()


@pytest.mark.parametrize("text", ["7", "007", "u_97980cfe", "1826484395.1699999000", "é"])
def test_a_typed_id_is_taken_as_it_is(text):
    assert parse_user(text) == text.encode()


@pytest.mark.parametrize("text", ["", "a\0", "9" * 4_301])
def test_a_text_that_is_no_id_is_refused(text):
    with pytest.raises(ValueError, match=r"^not a user's id: "):
        parse_user(text)
