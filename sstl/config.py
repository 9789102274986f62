"""Frozen dataclasses <-> YAML, strictly: an unknown key or a value of the wrong type is an error that names it."""

from __future__ import annotations

import dataclasses
import math
import re
import reprlib
import sys
import types
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import yaml

from sstl.errors import ConfigError, SstlError, did_you_mean

T = TypeVar("T")

_NUMBER_AS_TEXT = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+")
_WORDS = {bool: "true or false", int: "a whole number", float: "a number", str: "text", Path: "a path", list: "a list"}
_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 80


def load_config(cls: type[T], path: str | Path, overrides: Sequence[str] = ()) -> T:
    """Read a YAML file into the dataclass ``cls``.

    Args:
        cls: a dataclass; its type hints are the schema.
        path: the YAML file.
        overrides: ``key=value`` or ``part.key=value`` strings that replace values of the file.

    Raises:
        ConfigError: the file cannot be read, or a key or value does not fit; names the file, key and value.
    """
    return from_tree(cls, with_overrides(read_tree(path), overrides), where=str(path))


def read_tree(path: str | Path) -> Any:
    """Return what a YAML file holds, as plain dicts, lists and scalars; ConfigError if it cannot be read."""
    path = Path(path)
    try:
        text = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); check the path.") from None
    return _parse(text, str(path))


def with_overrides(tree: Any, overrides: Sequence[str]) -> Any:
    """Return plain dicts and lists with the values of ``key=value`` or ``part.key=value`` strings, which are YAML.

    Raises:
        ConfigError: a string is not of that form, its value is not YAML, or the tree has no such part.
    """
    for override in overrides:
        key, separator, value = override.partition("=")
        if not separator or not key:
            raise ConfigError(f"'{override}' is not of the form key=value.")
        tree = _replace(tree, key.split("."), _parse(value, f"'{override}'"), override)
    return tree


class _Loader(yaml.SafeLoader):
    """YAML without tags that run code, and without silently keeping the last of two equal keys."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """Read a mapping; ComposerError for a key given twice."""
        node = super().compose_mapping_node(anchor)
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    raise yaml.composer.ComposerError(
                        None, None, f"the key '{key.value}' is given twice", key.start_mark
                    )
                seen.add(key.value)
        return node


def _parse(text: str | bytes, where: str) -> Any:
    try:
        return yaml.load(text, _Loader)
    # Beside its own errors PyYAML lets through those of the conversions that it tries: 2001-99-99, !!bool x, [[[[...
    except (yaml.YAMLError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise ConfigError(f"{where}: not valid YAML: {' '.join(str(error).split())}") from None


def _replace(tree: Any, keys: list[str], value: Any, override: str) -> Any:
    tree = {} if tree is None else tree
    if not isinstance(tree, dict):
        raise ConfigError(f"'{override}': there is no key '{keys[0]}' to set here.")
    head, *rest = keys
    return {**tree, head: _replace(tree.get(head), rest, value, override) if rest else value}


def to_tree(config: Any) -> Any:
    """Return a dataclass as plain dicts, lists and scalars, ready for ``yaml.safe_dump`` or JSON."""
    if dataclasses.is_dataclass(config) and not isinstance(config, type):
        return {f.name: to_tree(getattr(config, f.name)) for f in dataclasses.fields(config)}
    if isinstance(config, dict):
        return {k: to_tree(v) for k, v in config.items()}
    if isinstance(config, list | tuple):
        return [to_tree(v) for v in config]
    return str(config) if isinstance(config, Path) else config


def flatten(tree: Any, key: str = "") -> dict[str, Any]:
    """Return nested dicts and lists as one level of keys; what is empty is kept as it is."""
    if isinstance(tree, dict) and tree:
        parts = [(f"{key}.{name}" if key else str(name), value) for name, value in tree.items()]
    elif isinstance(tree, list) and any(isinstance(value, dict | list) for value in tree):
        parts = [(f"{key}[{i}]", value) for i, value in enumerate(tree)]
    else:
        return {key: tree}
    return {name: value for part, inner in parts for name, value in flatten(inner, part).items()}


def from_tree(cls: type[T], tree: Any, where: str = "config") -> T:
    """Build the dataclass ``cls`` from plain dicts and lists; ConfigError names ``where`` and the key."""
    config: T = _convert(cls, tree, where, "")
    return config


def _convert(hint: Any, value: Any, where: str, key: str) -> Any:
    origin, args = get_origin(hint), get_args(hint)
    if hint is Any:
        return value
    if dataclasses.is_dataclass(hint):
        return _convert_dataclass(hint, value, where, key)
    if origin in (Union, types.UnionType):
        return _convert_union(hint, value, where, key)
    if origin is Literal:
        # By type too, because True == 1.
        if any(value == known and type(value) is type(known) for known in args):
            return value
        raise _misfit(hint, value, where, key)
    if origin in (tuple, list):
        if not isinstance(value, list):
            raise _misfit(hint, value, where, key)
        fixed = origin is tuple and args[-1] is not Ellipsis
        if fixed and len(value) != len(args):
            raise ConfigError(f"{_at(where, key)} has {len(value)} entries; it must have {len(args)}.")
        hints = args if fixed else [args[0]] * len(value)
        return origin(_convert(h, v, where, f"{key}[{i}]") for i, (h, v) in enumerate(zip(hints, value, strict=True)))
    if origin is dict:
        if not isinstance(value, dict):
            raise _misfit(hint, value, where, key)
        return {str(k): _convert(args[1], v, where, _join(key, k)) for k, v in value.items()}
    return _convert_scalar(hint, value, where, key)


def _convert_dataclass(cls: Any, tree: Any, where: str, key: str) -> Any:
    tree = {} if tree is None else tree
    if not isinstance(tree, dict):
        raise _misfit(cls, tree, where, key)
    hints = get_type_hints(cls)
    fields = {f.name: f for f in dataclasses.fields(cls)}
    for name in tree:
        if name not in fields:
            raise ConfigError(f"{where}: unknown key '{_join(key, name)}'.{did_you_mean(str(name), fields)}")
    for name, field in fields.items():
        required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if required and name not in tree:
            raise ConfigError(f"{where}: the key '{_join(key, name)}' is missing; add it.")
    values = {k: _convert(hints[k], v, where, _join(key, k)) for k, v in tree.items()}
    try:
        return cls(**values)
    except (ValueError, SstlError) as error:  # a dataclass's own __post_init__ check
        raise ConfigError(f"{where}: {f'{key}: ' if key else ''}{error}") from None


def _convert_union(hint: Any, value: Any, where: str, key: str) -> Any:
    if value is None and type(None) in get_args(hint):
        return None
    options = [option for option in get_args(hint) if option is not type(None)]
    errors = []
    for option in options:
        try:
            return _convert(option, value, where, key)
        except ConfigError as error:
            errors.append(error)
    # A mapping was meant for the dataclass among the options: what is wrong is inside it.
    raise errors[-1] if len(options) == 1 or isinstance(value, dict) else _misfit(hint, value, where, key)


def home_expanded(path: str, where: str = "a path") -> Path:
    """Return a path whose ``~`` or ``~NAME`` is the home folder meant; ``where`` tells an error whose path it is.

    Raises:
        ConfigError: there is no such home folder.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise ConfigError(f"{where} is {path!r}: there is no such home folder; write it out.") from error


def _convert_scalar(hint: Any, value: Any, where: str, key: str) -> Any:
    if hint is Path and isinstance(value, str):
        return home_expanded(value, _at(where, key))
    if hint is float and type(value) is int and abs(value) <= sys.float_info.max:
        return float(value)
    if isinstance(value, hint) and not (isinstance(value, bool) and hint is not bool):
        return value
    raise _misfit(hint, value, where, key)


def _misfit(hint: Any, value: Any, where: str, key: str) -> ConfigError:
    is_number = hint in (int, float) and isinstance(value, str) and _NUMBER_AS_TEXT.fullmatch(value.strip())
    if is_number and math.isfinite(number := float(value)):
        # PyYAML follows YAML 1.1, where a float needs a dot and a signed exponent; its own writer knows.
        plain: float = int(number) if hint is int and number.is_integer() else number
        remedy = f"YAML reads this as text; write {yaml.safe_dump(plain).split()[0]}."
    else:
        quote = hint is str and not isinstance(value, dict | list)
        remedy = f"it must be {_describe(hint)}{', in quotes' if quote else ''}."
    return ConfigError(f"{_at(where, key)} is {_SHORT.repr(value)}; {remedy}")


def _describe(hint: Any) -> str:
    origin, args = get_origin(hint), get_args(hint)
    if origin is Literal:
        return f"one of {', '.join(map(str, args))}"
    if origin in (Union, types.UnionType):
        return " or ".join(_describe(option) for option in args if option is not type(None))
    if dataclasses.is_dataclass(hint) or origin is dict:
        return "a mapping"
    return _WORDS.get(list if origin in (tuple, list) else hint, str(hint))


def _at(where: str, key: str) -> str:
    return f"{where}: '{key}'" if key else where


def _join(key: str, name: Any) -> str:
    return f"{key}.{name}" if key else str(name)
