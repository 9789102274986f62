"""Strict configuration: what does not fit is an error that names the key, the value and the remedy."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from sstl.config import from_tree, load_config, to_tree
from sstl.errors import ConfigError, SstlError


@dataclass(frozen=True)
class Part:
    rate: float = 0.5
    count: int = 3
    mode: Literal["auto", "off", 1] = "auto"

    def __post_init__(self) -> None:
        if self.count < 0:
            raise ValueError(f"'count' is {self.count}; it must not be negative.")


@dataclass(frozen=True)
class Whole:
    name: str
    lr: float = 1.0e-3
    steps: int = 10
    flag: bool = False
    root: Path | None = None
    part: Part = Part()
    parts: tuple[Part, ...] = ()
    crop: tuple[int, int] = (1, 2)
    shares: dict[str, float] = field(default_factory=dict)
    tile: Literal["auto"] | int = "auto"
    labels: list[str] = field(default_factory=list)
    options: dict[str, Any] = field(default_factory=dict)


@pytest.fixture
def load(tmp_path: Path):
    def write_and_load(text: str | bytes, *overrides: str) -> Whole:
        path = tmp_path / "run.yaml"
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return load_config(Whole, path, overrides)

    return write_and_load


def message(load, text: str | bytes, *overrides: str) -> str:
    """The error's text, which must be one line and name the file or the override."""
    with pytest.raises(ConfigError) as caught:
        load(text, *overrides)
    line = str(caught.value)
    assert "\n" not in line
    assert "run.yaml" in line or any(override in line for override in overrides)
    return line


def test_every_kind_of_value(load):
    config = load(
        """
        name: a
        lr: 1.0e-5
        steps: 7
        flag: true
        root: some/where
        part: {rate: 1, mode: off}
        parts: [{count: 1}, {}]
        crop: [3, 4]
        shares: {x: 1, y: 0.5}
        tile: 64
        labels: [a, b]
        options: {deep: {free: [1, a, null]}}
        """.replace("mode: off", "mode: 'off'")
    )
    assert config == Whole(
        name="a",
        lr=1e-5,
        steps=7,
        flag=True,
        root=Path("some/where"),
        part=Part(rate=1.0, mode="off"),
        parts=(Part(count=1), Part()),
        crop=(3, 4),
        shares={"x": 1.0, "y": 0.5},
        tile=64,
        labels=["a", "b"],
        options={"deep": {"free": [1, "a", None]}},
    )
    assert type(config.part.rate) is float
    assert type(config.shares["x"]) is float


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("name: a\nstep: 3", "unknown key 'step'. Did you mean 'steps'?"),
        ("name: a\npart: {coumt: 3}", "unknown key 'part.coumt'. Did you mean 'count'?"),
        ("name: a\nparts: [{}, {coumt: 3}]", "unknown key 'parts[1].coumt'. Did you mean 'count'?"),
        ("name: a\n1: 2", "unknown key '1'"),
        ("steps: 3", "the key 'name' is missing; add it."),
        ("", "the key 'name' is missing; add it."),
        ("name: no", "'name' is False; it must be text, in quotes."),
        ("name: 2024-01-01", "it must be text, in quotes."),
        ("name: [a]", "'name' is ['a']; it must be text."),
        ("name: a\nsteps: many", "'steps' is 'many'; it must be a whole number."),
        ("name: a\nsteps: 1.5", "'steps' is 1.5; it must be a whole number."),
        ("name: a\nsteps: true", "'steps' is True; it must be a whole number."),
        ("name: a\nsteps: null", "'steps' is None; it must be a whole number."),
        ("name: a\nlr: true", "'lr' is True; it must be a number."),
        ("name: a\nflag: 1", "'flag' is 1; it must be true or false."),
        ("name: a\nroot: 3", "'root' is 3; it must be a path."),
        ("name: a\npart: 3", "'part' is 3; it must be a mapping."),
        ("name: a\nparts: {}", "'parts' is {}; it must be a list."),
        ("name: a\nlabels: a", "'labels' is 'a'; it must be a list."),
        ("name: a\nlabels: [a, 3]", "'labels[1]' is 3; it must be text, in quotes."),
        ("name: a\ncrop: [1, 2, 3]", "'crop' has 3 entries; it must have 2."),
        ("name: a\nshares: [1]", "'shares' is [1]; it must be a mapping."),
        ("name: a\nshares: {x: y}", "'shares.x' is 'y'; it must be a number."),
        ("name: a\npart: {mode: on}", "'part.mode' is True; it must be one of auto, off, 1."),
        ("name: a\npart: {mode: 1.0}", "'part.mode' is 1.0; it must be one of auto, off, 1."),
        ("name: a\ntile: autp", "'tile' is 'autp'; it must be one of auto or a whole number."),
        ("name: a\npart: {count: -1}", "part: 'count' is -1; it must not be negative."),
        ("name: a\nlr: 1e-5", "'lr' is '1e-5'; YAML reads this as text; write 1.0e-05."),
        ("name: a\nlr: 3.25e4", "'lr' is '3.25e4'; YAML reads this as text; write 32500.0."),
        ("name: a\nlr: .5e3", "YAML reads this as text; write 500.0."),
        ("name: a\nsteps: 1e5", "'steps' is '1e5'; YAML reads this as text; write 100000."),
        (f"name: a\nlr: {10**400}", "it must be a number."),
        ("- a", "is ['a']; it must be a mapping."),
        ("name: a\nsteps: 1\nsteps: 2", "the key 'steps' is given twice"),
        ("name: [", "not valid YAML"),
        ("name: !!python/object/apply:os.getcwd []", "not valid YAML"),
        ("name: 2024-99-99", "not valid YAML"),
        ("name: !!bool maybe", "not valid YAML"),
        ("name: !!timestamp soon", "not valid YAML"),
        ("name: " + "[" * 5000, "not valid YAML"),
        (b"name: \xff\xfe", "not valid YAML"),
        (b"\x00", "not valid YAML"),
    ],
)
def test_what_does_not_fit_is_named(load, text, expected):
    assert expected in message(load, text)


def test_the_suggested_number_is_what_was_meant(load):
    for text in ("1e-5", "-2E3", "6.02e23", ".5e3", "3e-0"):
        remedy = message(load, f"name: a\nlr: {text}").partition("; write ")[2].rstrip(".")
        assert load(f"name: a\nlr: {remedy}").lr == float(text)


def test_overrides(load):
    config = load("name: a\npart: {rate: 2.0}", "part.count=5", "lr=1.0e-5", "name=b=c", "crop=[5, 6]", "root=null")
    assert config == Whole(name="b=c", lr=1e-5, part=Part(rate=2.0, count=5), crop=(5, 6), root=None)
    assert load("", "name=a", "part.rate=1").part.rate == 1.0


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("steps", "'steps' is not of the form key=value."),
        ("=3", "'=3' is not of the form key=value."),
        ("steps=[", "'steps=[': not valid YAML"),
        ("steps.x=3", "'steps.x=3': there is no key 'x' to set here."),
        ("flag.x=3", "'flag.x=3': there is no key 'x' to set here."),
        ("lr=1e-5", "YAML reads this as text; write 1.0e-05."),
        ("part.coumt=3", "unknown key 'part.coumt'. Did you mean 'count'?"),
    ],
)
def test_a_wrong_override_is_named(load, override, expected):
    assert expected in message(load, "name: a\nsteps: 0\nflag: false", override)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"nowhere\.yaml: cannot be read \(No such file or directory\)"):
        load_config(Whole, tmp_path / "nowhere.yaml")


def test_merge_keys_still_work(load):
    text = "name: a\nparts: [&first {rate: 1.0, count: 2}, &second {<<: *first, count: 4}, {<<: *second, rate: 3.0}]"
    assert load(text).parts == (Part(1.0, 2), Part(1.0, 4), Part(3.0, 4))


def test_a_billion_laughs_is_one_short_line(load):
    lines = ["name: a", "a0: &a0 [x, x]", *(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]" for i in range(1, 40)), "lr: *a39"]
    text = "\n".join(["labels: &l []", *lines])
    assert len(message(load, text)) < 300
    assert len(message(load, f"name: a\nlr: {'x' * 10000}")) < 300


def test_an_error_of_the_dataclass_names_the_file():
    @dataclass(frozen=True)
    class Picky:
        x: int = 1

        def __post_init__(self) -> None:
            raise SstlError("'x' is wrong.")

    with pytest.raises(ConfigError, match=r"^some\.yaml: 'x' is wrong\.$"):
        from_tree(Picky, {}, where="some.yaml")


def test_a_home_folder_is_expanded_and_one_that_is_not_there_is_named():
    assert from_tree(Whole, {"name": "a", "root": "~/rain"}).root == Path.home() / "rain"
    with pytest.raises(ConfigError, match=r"'root' is '~no-such-user/rain': there is no such home folder"):
        from_tree(Whole, {"name": "a", "root": "~no-such-user/rain"})


text = st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc")), max_size=8)
finite = st.floats(allow_nan=False, allow_infinity=True)
free = st.recursive(
    st.none() | st.booleans() | st.integers() | finite | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=6,
)
part = st.builds(Part, rate=finite, count=st.integers(0), mode=st.sampled_from(["auto", "off", 1]))
whole = st.builds(
    Whole,
    name=text,
    lr=finite,
    steps=st.integers(),
    flag=st.booleans(),
    root=st.none() | text.filter(lambda name: not name.startswith("~")).map(Path),
    part=part,
    parts=st.lists(part, max_size=3).map(tuple),
    crop=st.tuples(st.integers(), st.integers()),
    shares=st.dictionaries(text, finite, max_size=3),
    tile=st.just("auto") | st.integers(),
    labels=st.lists(text, max_size=3),
    options=st.dictionaries(text, free, max_size=3),
)


@given(whole)
def test_tree_and_yaml_round_trips(config):
    tree = to_tree(config)
    assert from_tree(Whole, tree) == config
    assert from_tree(Whole, yaml.safe_load(yaml.safe_dump(tree))) == config


pieces = st.sampled_from(
    [b"name: a\n", b"parts: [", b"{", b"*a", b"&a ", b"- ", b"!!", b"int ", b"0x_", b"2001-9-99"]
) | st.binary(max_size=6)


@settings(max_examples=300)
@given(st.lists(pieces, max_size=12).map(b"".join))
def test_garbage_never_raises_anything_but_a_config_error(tmp_path_factory, garbage):
    path = tmp_path_factory.getbasetemp() / "garbage.yaml"
    path.write_bytes(garbage)
    for overrides in ((), (f"options.x={garbage.decode('latin-1')}",)):
        with contextlib.suppress(ConfigError):
            load_config(Whole, path, overrides)


@pytest.mark.parametrize("text", ['"na\\nme": 1', '"na\\u2028me": 1', 'name: "x"\n"l\\nr": 1'])
def test_an_error_is_one_line_whatever_the_file_holds(tmp_path, text):
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as found:
        load_config(Whole, path)
    assert len(str(found.value).splitlines()) == 1
    assert str(found.value).startswith(str(path))
