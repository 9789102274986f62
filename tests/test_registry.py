"""Tables of named factories, and the help for a mistyped name."""

from __future__ import annotations

import pytest

from sstl.errors import InputError, SstlError, did_you_mean
from sstl.registry import Registry


@pytest.fixture
def table() -> Registry:
    registry = Registry("pump")

    @registry.register("hand_pump")
    def hand(size: int = 1) -> str:
        """A pump moved by hand.

        Slowly.
        """
        return f"hand {size}"

    @registry.register("wind_pump")
    def wind() -> str:
        return "wind"

    return registry


def test_entries_are_found_by_name_and_pattern(table):
    assert table["hand_pump"](size=3) == "hand 3"
    assert table.names() == ["hand_pump", "wind_pump"]
    assert table.names("wind*") == ["wind_pump"]
    assert table.names("WIND*") == []
    assert table.summary("hand_pump") == "A pump moved by hand."
    assert table.summary("wind_pump") == ""


def test_an_unknown_name_is_a_usage_error_with_a_suggestion(table):
    with pytest.raises(SstlError, match=r"^unknown pump 'hand_pmup'\. Did you mean 'hand_pump'\?$") as caught:
        table["hand_pmup"]
    assert caught.value.exit_code == 2
    with pytest.raises(SstlError, match=r"^unknown pump 'xyz'\. Known: hand_pump, wind_pump\.$"):
        table["xyz"]


def test_a_name_is_taken_once(table):
    with pytest.raises(ValueError, match="pump 'wind_pump' is registered twice"):
        table.register("wind_pump")(lambda: "another")
    assert table["wind_pump"]() == "wind"


def test_nothing_known():
    assert did_you_mean("x", []) == " Known: none."


def test_exit_codes():
    assert SstlError("usage").exit_code == 2
    assert InputError("one photo").exit_code == 1
