"""The settings of the operator: each is a flag, with the same default, and stands in the documents."""

import dataclasses
import re
from pathlib import Path

import click
import pytest

from kmseal.cluster.keys import Mode
from kmseal_operator.main import main
from kmseal_operator.settings import OperatorSettings

OPERATIONS = Path(__file__).parents[3] / "docs" / "operations.md"
OPTIONS = {option.name: option for option in main.params if option.name != "version"}
FIELDS = {field.name: field for field in dataclasses.fields(OperatorSettings)}


def flag_of(name: str) -> str:
    return OPTIONS[name].opts[0]


def test_every_setting_is_a_flag_and_every_flag_a_setting() -> None:
    """Nothing can be set in the code only, and no flag is read by nobody."""
    assert set(OPTIONS) == set(FIELDS)


@pytest.mark.parametrize("name", FIELDS)
def test_a_flag_has_the_default_of_its_setting(name: str) -> None:
    """What --help says is what happens; a flag that is repeated has none."""
    option = OPTIONS[name]
    assert isinstance(option, click.Option)
    assert option.multiple or option.default == FIELDS[name].default


@pytest.mark.parametrize("name", FIELDS)
def test_a_flag_is_documented_with_its_variable_and_default(name: str) -> None:
    """One row of the table in docs/operations.md: the flag, KMSEAL_<NAME>, and the default where there is one."""
    section = OPERATIONS.read_text().partition("\n## Settings of the operator\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `(--[a-z-]+)` \| `(\w+)` \|([^|]*)\|", section, re.MULTILINE)
    found = [(variable, default.strip("` ")) for flag, variable, default in rows if flag == flag_of(name)]
    assert [variable for variable, _ in found] == [f"KMSEAL_{name.upper()}"]
    default = FIELDS[name].default
    if default:
        assert found[0][1] == (f"{default:g}" if isinstance(default, float) else str(default))


def test_every_flag_has_a_help_text_or_its_choices() -> None:
    """--help alone is enough to use it."""
    for option in OPTIONS.values():
        assert isinstance(option, click.Option)
        assert option.help or isinstance(option.type, click.Choice)


def test_the_modes_of_keys_are_the_choices_of_the_flag() -> None:
    """A mode that cannot be chosen is none."""
    choice = OPTIONS["keys"].type
    assert isinstance(choice, click.Choice)
    assert list(choice.choices) == [mode.value for mode in Mode]
    assert OperatorSettings().keys in choice.choices
