"""The id that a door makes of a name is the one that RFC 9562 has for it, whatever stands in the name."""

from uuid import uuid5

from hypothesis import given
from hypothesis import strategies as st

from tollmeter.server.events import NAMESPACE, id_of_name


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_the_id_of_a_name(name: str) -> None:
    assert id_of_name(name) == str(uuid5(NAMESPACE, name))
