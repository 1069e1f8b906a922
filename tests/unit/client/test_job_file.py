"""Parsing of job files, and the positions of their keys and values."""

from __future__ import annotations

from pathlib import Path

import pytest

from galaxy.client.source import job_file
from galaxy.errors import SpecError, UsageError

YAML = """\
name: web
pod:
  tasks:
    - cpu: 250m
      env:
        A: "x"
    - memory: 64M
"""
JSON = '{\n\t"name": "web",\n\t"pod": {"tasks": [\n\t\t{"cpu": "250m"},\n\t\t{"memory": 1}\n\t]}\n}\n'
TOML = """\
name = "web"  # a comment with [brackets] = "and quotes"
[deploy]
pools = ["a", # first
  "b"]
[pod]
workspace = {size = "64M", path = '/x#y'}
[[pod.tasks]]
start = \"\"\"
[not.a.table]
x = 1\"\"\"
env.A = "b"
[[pod.tasks]]
[pod.tasks.package]
"source" = "c"
"""


def position(text: str, format: str, *path: str | int) -> tuple[int, int]:
    return tuple(job_file.parse(text, name="x", format=format).marks[path])  # type: ignore[return-value]


def test_yaml_positions_are_those_of_keys_and_items() -> None:
    assert position(YAML, "yaml", "name") == (1, 1)
    assert position(YAML, "yaml", "pod", "tasks", 0, "env", "A") == (6, 9)
    assert position(YAML, "yaml", "pod", "tasks", 1) == (7, 7)


def test_json_positions_count_a_tab_as_one_column() -> None:
    assert position(JSON, "json", "name") == (2, 2)
    assert position(JSON, "json", "pod", "tasks", 0, "cpu") == (4, 4)
    assert position(JSON, "json", "pod", "tasks", 1, "memory") == (5, 4)


def test_json_positions_are_found_after_text_that_yaml_reads_differently() -> None:
    text = '{"\\ud83d\\ude00": "\\ud800", "b\u2028\x7f": ["\u2028",\r\n"\\/\\u0041"],\n"c":1}'
    assert position(text, "json", "\U0001f600") == (1, 2)
    assert position(text, "json", "b\u2028\x7f", 1) == (2, 1)
    assert position(text, "json", "c") == (3, 1)


def test_json_positions_are_left_out_where_yaml_refuses_the_text() -> None:
    read = job_file.parse('{"' + "a" * 2000 + '": 1}', name="x", format="json")
    assert read.marks == {(): (1, 1)}


def test_toml_positions_are_found_through_tables_lists_and_strings() -> None:
    assert position(TOML, "toml", "deploy", "pools", 1) == (4, 3)
    assert position(TOML, "toml", "pod", "workspace", "path") == (6, 28)
    assert position(TOML, "toml", "pod", "tasks", 0, "env", "A") == (11, 1)
    assert position(TOML, "toml", "pod", "tasks", 1, "package", "source") == (14, 1)


def test_every_value_in_every_format_has_a_position() -> None:
    for text, format in ((YAML, "yaml"), (JSON, "json"), (TOML, "toml")):
        read = job_file.parse(text, name="x", format=format)
        missing = [path for path in paths(read.tree) if path not in read.marks]
        assert missing == []


def paths(tree: object, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    inner = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    return [path, *(found for step, item in inner for found in paths(item, (*path, step)))]


@pytest.mark.parametrize(
    ("text", "format", "place", "cause"),
    [
        ("a: 1\nb: [1,\n", "yaml", "x:3:1", "expected"),
        ("a: 1\na: 2\n", "yaml", "x:2:1", "given twice, first in line 1"),
        ("a: !!python/object:os.system x\n", "yaml", "x:1:4", "tag"),
        ("a: 1\n---\nb: 2\n", "yaml", "x:2:1", "document"),
        ("a: *b\n", "yaml", "x:1:4", "undefined alias"),
        ("a: &b {<<: *b}\n", "yaml", "x:1:8", "merge"),
        ("", "yaml", "x:1:1", "empty"),
        ('{"a": 1\n "b": 2}', "json", "x:2:2", "',' delimiter"),
        ('{"a": 1, "a": 2}', "json", "x:1:10", "given twice"),
        ('{"b": {"a": 0}, "a": 1,\n "a": 2}', "json", "x:2:2", "given twice, first in line 1"),
        ('{"a": nope}', "json", "x:1:7", "Expecting value"),
        ('{"a": NaN}', "json", "x:1:7", "not a value of JSON"),
        ('["NaN",\t-Infinity]', "json", "x:1:9", "not a value of JSON"),
        ('{"a": "b', "json", "x:1:7", "Unterminated"),
        ("{}{}", "json", "x:1:3", "Extra data"),
        ('{"a":', "json", "x:1:6", "Expecting value"),
        ("a = 1\nb = \n", "toml", "x:2:5", "Invalid value"),
        ("a = 1\na = 2\n", "toml", "x:2:6", "overwrite"),
    ],
)
def test_wrong_syntax_is_reported_with_line_and_column(
    text: str, format: str, place: str, cause: str
) -> None:
    with pytest.raises(SpecError) as caught:
        job_file.parse(text, name="x", format=format)
    assert caught.value.details[0].startswith(f"{place}: ")
    assert cause in caught.value.details[0]


def test_trailing_comma_in_json_is_refused() -> None:
    with pytest.raises(SpecError) as caught:
        job_file.parse('{\n\t"a": 1,\n}', name="x", format="json")
    # Python 3.13 and later name the comma, earlier ones the bracket behind it.
    assert caught.value.details[0].startswith(
        ("x:3:1: Expecting property name", "x:2:8: Illegal trailing comma")
    )


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("no", "no"), ("12:30", "12:30"), ("1_000", "1_000"), ("010", "010"), ("2026-11-22", "2026-11-22"),
        ("0x10", "0x10"), ('"1"', "1"), ("1", 1), ("1.5", 1.5), ("1e3", 1000.0), ("true", True), ("~", None),
        (".5", 0.5), ("1.0.0", "1.0.0"), ("-3", -3),
    ],
)  # fmt: skip
def test_yaml_scalars_follow_the_core_schema(text: str, value: object) -> None:
    assert job_file.parse(f"a: {text}", name="x", format="yaml").tree == {"a": value}


def test_aliases_are_expanded_up_to_a_limit() -> None:
    tree = job_file.parse("a: &x {b: 1}\nc: *x", name="x", format="yaml").tree
    assert tree == {"a": {"b": 1}, "c": {"b": 1}}
    levels = "\n".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 10))
    with pytest.raises(SpecError) as caught:
        job_file.parse(f"a0: &a0 [x]\n{levels}", name="x", format="yaml")
    assert "aliases expanded" in caught.value.details[0]


def test_alias_that_contains_itself_is_refused() -> None:
    with pytest.raises(SpecError) as caught:
        job_file.parse("a: &x [*x]", name="x", format="yaml")
    assert "levels" in caught.value.details[0]


@pytest.mark.parametrize(
    ("text", "format"), [("[" * 50_000, "yaml"), ("[" * 50_000, "json"), ("a=" + "[" * 5000, "toml")]
)
def test_very_deep_nesting_is_refused(text: str, format: str) -> None:
    with pytest.raises(SpecError):
        job_file.parse(text, name="x", format=format)


@pytest.mark.parametrize(
    ("text", "format"),
    [('\n {"a": 1}', "json"), ("[a]\nb=1", "toml"), ("a = 1", "toml"), ("a: b = c", "yaml")],
)
def test_format_without_suffix_is_guessed_from_the_text(text: str, format: str) -> None:
    assert job_file.parse(text, name="x").format == format


def test_file_is_read_by_its_suffix(tmp_path: Path) -> None:
    for name, text in (("a.yaml", "a: 1"), ("a.yml", "a: 1"), ("a.json", '{"a": 1}'), ("a.toml", "a = 1")):
        (tmp_path / name).write_text(text)
        assert job_file.read(str(tmp_path / name)).tree == {"a": 1}


def test_missing_unknown_long_and_binary_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="No such file"):
        job_file.read(str(tmp_path / "none.yaml"))
    with pytest.raises(SpecError, match="cannot read price file"):
        job_file.read(str(tmp_path / "none.yaml"), what="price file")
    with pytest.raises(UsageError, match="format"):
        job_file.read(str(tmp_path / "job.xml"))
    (tmp_path / "big.yaml").write_bytes(b"#" * (job_file.FILE_BYTES_MAX + 1))
    with pytest.raises(SpecError, match="longer than 512 KiB"):
        job_file.read(str(tmp_path / "big.yaml"))
    (tmp_path / "bin.yaml").write_bytes(b"a: 1\nb: \xff\n")
    with pytest.raises(SpecError, match="line 2 is not UTF-8"):
        job_file.read(str(tmp_path / "bin.yaml"))
    (tmp_path / "syntax.json").write_text("{")
    with pytest.raises(SpecError, match="cannot read price file"):
        job_file.read(str(tmp_path / "syntax.json"), what="price file")


def test_problems_have_the_name_of_the_file_and_their_lines(tmp_path: Path) -> None:
    path = tmp_path / "job.yaml"
    path.write_text("name: web\ndeploy:\n  replcia: 2\npod:\n  tasks:\n    - cpu: 1\n      memory: 64M\n")
    with pytest.raises(SpecError) as caught:
        job_file.load(str(path))
    assert caught.value.details == (
        f"{path}:3:3: `deploy.replcia`: unknown field; did you mean `replica`?",
        f"{path}:6:7: `pod.tasks[0].start`: is missing",
    )
