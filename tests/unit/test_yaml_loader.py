from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.errors import UserError
from components.yaml_loader import LoadedYaml, load_yaml, parse_value


def _load(folder: Path, text: str | bytes) -> LoadedYaml:
    path = folder / "file.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return load_yaml(path, "config/file.yaml")


SCALARS: list[tuple[str, Any]] = [
    ("5e-4", 0.0005),
    ("1e6", 1e6),
    ("1E+6", 1e6),
    (".5", 0.5),
    ("-3.", -3.0),
    ("1.5", 1.5),
    (".inf", math.inf),
    ("-.inf", -math.inf),
    ("12", 12),
    ("-3", -3),
    ("+4", 4),
    ("010", 10),
    ("0o17", 15),
    ("0x1F", 31),
    ("1_000", "1_000"),
    ("3:30", "3:30"),
    ("2024-01-01", "2024-01-01"),
    ("true", True),
    ("False", False),
    ("no", "no"),
    ("yes", "yes"),
    ("on", "on"),
    ("off", "off"),
    ("y", "y"),
    ("null", None),
    ("~", None),
    ("inf", "inf"),
    ("e5", "e5"),
    ("3m", "3m"),
    ("'5'", "5"),
    ('"true"', "true"),
    ("[1, 2e1, a, null]", [1, 20.0, "a", None]),
    ("a b", "a b"),
]


@pytest.mark.parametrize(("text", "value"), SCALARS)
def test_values_follow_yaml_1_2(tmp_path: Path, text: str, value: Any) -> None:
    loaded = _load(tmp_path, f"key: {text}\n").values["key"]
    assert loaded == value
    assert type(loaded) is type(value)


@pytest.mark.parametrize(("text", "value"), SCALARS)
def test_command_line_values_follow_the_same_rules(text: str, value: Any) -> None:
    parsed = parse_value(text)
    assert parsed == value
    assert type(parsed) is type(value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("None", None),
        ("[None, True]", [None, True]),
        ("True", True),
        ("", ""),
        ("[]", []),
        ("[1, 2", "[1, 2"),
        ("{a: 1}", "{a: 1}"),
        ("a: 1", "a: 1"),
        ("- 1", "- 1"),
        ("1 # one", "1 # one"),
        ("[1] # one", "[1] # one"),
        ("# one", "# one"),
        ("!!int 5", "!!int 5"),
        ("&a 5", "&a 5"),
        ("*a", "*a"),
        ("|", "|"),
        ("a\nb", "a\nb"),
        ("1+1", "1+1"),
        ("[!!python/name:os.system]", "[!!python/name:os.system]"),
        ("a=b", "a=b"),
        ("9" * 5000, "9" * 5000),
    ],
)
def test_command_line_values_beyond_yaml(text: str, value: Any) -> None:
    assert parse_value(text) == value


def test_none_is_a_text_in_a_file(tmp_path: Path) -> None:
    assert _load(tmp_path, "key: None\n").values == {"key": "None"}


def test_lines_of_nested_keys(tmp_path: Path) -> None:
    loaded = _load(tmp_path, "# comment\na: 1\nb:\n  c: 2\n  d: {e: 3,\n      f: 4}\ng: [{h: 1}]\n")
    assert loaded.values == {"a": 1, "b": {"c": 2, "d": {"e": 3, "f": 4}}, "g": [{"h": 1}]}
    assert loaded.lines == {"a": 2, "b": 3, "b.c": 4, "b.d": 5, "b.d.e": 5, "b.d.f": 6, "g": 7}


@pytest.mark.parametrize("text", ["", "# only a comment\n", "---\n", "\ufeff", "null"])
def test_empty_files(tmp_path: Path, text: str) -> None:
    if text in ("---\n", "null"):
        with pytest.raises(UserError, match="key: value"):
            _load(tmp_path, text)
    else:
        assert _load(tmp_path, text) == LoadedYaml({}, {})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3\n", r"config/file\.yaml:3: duplicate key 'a', already on line 1"),
        ("x:\n  a: 1\n  a: 1\n", r"config/file\.yaml:3: duplicate key 'x\.a', already on line 2"),
        ("x: [{a: 1, a: 2}]\n", r"config/file\.yaml:1: duplicate key"),
        ("a: 1\nb: [1, 2\n", r"config/file\.yaml:3: not valid YAML"),
        ("a: 1\n\tb: 2\n", r"config/file\.yaml:2: not valid YAML"),
        ("a: 1\n---\nb: 2\n", r"config/file\.yaml:2: not valid YAML"),
        ("a: 1\nb: \x00\n", r"config/file\.yaml:2: a character"),
        (b"a: 1\nb: \xff\n", r"config/file\.yaml:2: not UTF-8"),
        ("- 1\n- 2\n", r"config/file\.yaml:1: expected lines of the form key: value"),
        ("just words\n", r"config/file\.yaml:1: expected lines"),
        ("a: 1\n3: 2\n", r"config/file\.yaml:2: a key must be a word"),
        ("[a]: 2\n", r"config/file\.yaml:1: a key must be a word"),
        ("a.b: 2\n", r"config/file\.yaml:1: the key 'a\.b' contains a dot"),
        ("a: 1\nb: &x 2\n", r"config/file\.yaml:2: not valid YAML: anchors"),
        ("a: *x\n", r"config/file\.yaml:1: not valid YAML: anchors"),
        ("a: !!int word\n", r"config/file\.yaml:1: 'word' cannot be read as !!int"),
        ("a: !!bool word\n", r"config/file\.yaml:1: 'word' cannot be read as !!bool"),
        ("a: " + "9" * 5000, r"config/file\.yaml:1: '9+' cannot be read as !!int"),
        ("a: !!set {b}\n", r"config/file\.yaml:1: the tag '!!set' is not allowed"),
        ("a: !mine 3\n", r"config/file\.yaml:1: the tag '!mine' is not allowed"),
        ("a: " + "[" * 5000, r"config/file\.yaml: nested too deeply"),
    ],
)
def test_faults_name_file_and_line(tmp_path: Path, text: str | bytes, message: str) -> None:
    with pytest.raises(UserError, match=message):
        _load(tmp_path, text)


def test_unreadable_files(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"absent\.yaml: cannot be read: No such file"):
        load_yaml(tmp_path / "absent.yaml")
    with pytest.raises(UserError, match="cannot be read"):
        load_yaml(tmp_path)


@pytest.mark.parametrize(
    "payload",
    [
        "!!python/object/apply:os.mkdir ['{canary}']",
        "!!python/object/new:os.mkdir ['{canary}']",
        "!!python/object/apply:pathlib.Path.mkdir [!!python/object/apply:pathlib.Path ['{canary}']]",
        "!!python/name:os.mkdir",
        "!!python/tuple [1]",
    ],
)
def test_code_in_a_file_is_refused(tmp_path: Path, payload: str) -> None:
    canary = tmp_path / "canary"
    with pytest.raises(UserError, match=r"config/file\.yaml:1: the tag '!!python/"):
        _load(tmp_path, "key: " + payload.format(canary=canary))
    assert not canary.exists()


@pytest.mark.parametrize(
    "payload",
    [
        "__import__('os').mkdir('{canary}')",
        "!!python/object/apply:os.mkdir ['{canary}']",
        "[!!python/object/apply:os.mkdir ['{canary}']]",
        "$(mkdir {canary})",
    ],
)
def test_code_on_the_command_line_stays_a_text(tmp_path: Path, payload: str) -> None:
    canary = tmp_path / "canary"
    text = payload.format(canary=canary)
    assert parse_value(text) == text
    assert not canary.exists()


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.text(max_size=30))
def test_any_text_is_a_value(text: str) -> None:
    assert isinstance(parse_value(text), str | int | float | list | None)
