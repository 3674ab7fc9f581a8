"""TOML with lines: every key is found where it was written, every problem is kept, nothing else is raised."""

from __future__ import annotations

import tomllib
from string import ascii_lowercase

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kinkvpn import values
from kinkvpn.document import Document, DocumentError, Table, Unexpected, locate, show_value

# Each scalar with the lines it takes: whatever can hide a newline, a bracket, a quote or a comment.
SCALARS = st.sampled_from(
    [
        ("1", 1),
        ("true", 1),
        ('"a # no comment"', 1),
        ('"[\\"{,"', 1),
        ("'literal \\ [ '", 1),
        ('"""a\nb"""', 2),
        ('"""two quotes ""\n\n"""', 3),
        ('"""\nends in a quote""""', 2),
        ("'''\n[x]\nk = 1\n'''", 4),
        ("{ x = 1, y = [1, 2] }", 1),
        ("1979-05-27T07:32:00Z", 1),
        ('""', 1),
    ]
)
GAPS = st.lists(st.sampled_from(["", "# [comment] = \"'", "  \t"]), max_size=2)
KEYS = st.text(ascii_lowercase, min_size=1, max_size=3)


@st.composite
def documents(draw: st.DrawFn) -> tuple[str, dict[tuple[str | int, ...], int]]:
    """A document and, from how it was put together, the line of each of its keys and array items."""
    lines: list[str] = []
    expected: dict[tuple[str | int, ...], int] = {}

    def write(text: str) -> int:
        lines.extend(draw(GAPS))
        lines.extend(text.split("\n"))
        return len(lines) - text.count("\n")

    def write_array(path: tuple[str | int, ...]) -> None:
        expected[path] = write(f"{path[-1]} = [")
        for index in range(draw(st.integers(0, 3))):
            expected[(*path, index)] = write(draw(SCALARS)[0] + ", # next")
        lines.append("  ]")

    def write_keys(base: tuple[str | int, ...]) -> None:
        for key in draw(st.lists(KEYS, unique=True, max_size=4)):
            if draw(st.booleans()):
                expected[(*base, key)] = write(f"{key} = {draw(SCALARS)[0]}")
            else:
                write_array((*base, key))

    for name in draw(st.lists(KEYS.map(str.upper), unique=True, max_size=3)):
        if draw(st.booleans()):
            expected[(name,)] = write(f"[{name}] # table")
            write_keys((name,))
            continue
        for index in range(draw(st.integers(1, 2))):
            expected[(name, index)] = write(f"[[ {name} ]]")
            write_keys((name, index))
            for inner in range(draw(st.integers(0, 2))):
                expected[(name, index, "Inner", inner)] = write(f'[["{name}".Inner]]')
                write_keys((name, index, "Inner", inner))
    return "\n".join(lines), expected


@given(documents())
def test_every_key_and_item_has_the_line_it_was_written_on(
    document: tuple[str, dict[tuple[str | int, ...], int]],
) -> None:
    text, expected = document
    tomllib.loads(text)
    found = locate(text)
    assert {path: found.get(path) for path in expected} == expected


def test_dotted_and_quoted_keys() -> None:
    lines = locate('a.b = 1\n\n"x.y".z = [1,\n 2]\n[t."u v"]\nw = 3')
    assert lines["a", "b"] == 1
    assert lines["x.y", "z", 1] == 4
    assert lines["t", "u v", "w"] == 6


def test_what_has_no_line_takes_the_one_around_it() -> None:
    document = Document.parse("\n[a]\nb = [[1,\n2]]\n", "f")
    assert document.line(("a", "missing")) == 2
    assert document.line(("a", "b", 0, 1)) == 3
    assert document.line(("nowhere",)) == 1


@pytest.mark.parametrize(
    ("text", "line"),
    [("a = 1\nb = \n", 2), ("a = 1\na = 2\n", 2), ("\n\n[x", 3), ("a = 1\r\nb = ?\r\n", 2), ("[a]\n[a]\n", 2)],
)
def test_what_is_not_toml_names_its_line(text: str, line: int) -> None:
    with pytest.raises(DocumentError) as caught:
        Document.parse(text, "f.toml")
    (problem,) = caught.value.problems
    assert problem.line == line
    assert str(caught.value).startswith(f"f.toml:{line}: not TOML: ")


@given(st.text())
def test_any_text_is_a_document_or_a_document_error(text: str) -> None:
    try:
        document = Document.parse(text, "f")
    except DocumentError:
        return
    document.line(("x",))


def number(value: object) -> int:
    if not isinstance(value, int):
        raise Unexpected("a number")
    return value


def table(text: str) -> tuple[Document, Table]:
    document = Document.parse(text, "f")
    return document, Table(document, (), document.root)


def problems(document: Document) -> list[str]:
    with pytest.raises(DocumentError) as caught:
        document.raise_problems()
    return str(caught.value).split("\n")


def test_a_sound_table_has_no_problems() -> None:
    document, root = table("a = 1\nb = [2, 3]\nc = 4\n")
    assert root.get("a", number, 0) == 1
    assert root.items("b", number) == (2, 3)
    assert root.items("c", number) == (4,)
    assert root.get("d", number, 7) == 7
    assert root.items("e", number, (8,)) == (8,)
    root.close()
    document.raise_problems()
    assert root.sound


def test_every_problem_is_reported_in_the_order_of_the_lines() -> None:
    document, root = table("z = 'x'\nlist = [1, 'y',\n 1]\nempty = []\ncolour = 1\n[deep.t]\nq = 1\n")
    assert root.get("z", number, 5) == 5
    assert root.items("list", number) == (1,)
    root.items("empty", number)
    root.require("gone", number, 0, "a number")
    root.require_items("lost", number, "numbers")
    root.get("color", number, 0)
    deep = root.table("deep")
    inner = deep.table("t")
    inner.get("r", number, 0)
    inner.close()
    deep.close()
    root.close()
    assert not root.sound
    assert problems(document) == [
        "f:1: gone is missing: expected a number",
        "f:1: lost is missing: expected numbers",
        'f:1: z = "x": expected a number',
        'f:2: list[2] = "y": expected a number',
        "f:3: list[3] = 1: expected each value once",
        "f:4: empty = []: expected at least one value, or no such key",
        "f:5: colour: unknown key; did you mean color?",
        "f:7: deep.t.q: unknown key; there are r",
    ]


@pytest.mark.parametrize("value", ["1", "[1]", "[{}, 1]", "'x'"])
def test_what_is_no_table_is_reported(value: str) -> None:
    document, root = table(f"a = {value}\n")
    root.table("a")
    assert problems(document) == [f"f:1: a = {show_value(document.root['a'])}: expected a table: [a]"]
    document, root = table(f"a = {value}\n")
    assert root.tables("a") == []
    assert problems(document) == [f"f:1: a = {show_value(document.root['a'])}: expected an array of tables: [[a]]"]


def test_a_long_value_is_cut_and_a_control_character_escaped() -> None:
    assert len(show_value("x" * 1000)) == 60
    assert "\x1b" not in show_value("\x1b[31m")


def test_problems_of_a_secret_document_show_no_value() -> None:
    document = Document.parse('a = "hidden"\nt = "hidden"\n[[l]]\nb = "hidden"\n[s]\nc = "hidden"\n', "x")
    root = Table(document, (), document.root, secret=True)
    root.get("a", values.integer(1, 2), 1)
    root.table("t").close()
    root.tables("l")[0].get("b", values.integer(1, 2), 1)
    root.table("s").items("c", values.integer(1, 2))
    root.close()
    with pytest.raises(DocumentError) as raised:
        document.raise_problems()
    assert len(raised.value.problems) == 4
    assert "hidden" not in str(raised.value)
    assert "x:4: l[1].b: expected an integer from 1 to 2" in str(raised.value)


def test_nor_a_name_that_may_be_a_value_in_the_wrong_place() -> None:
    document = Document.parse('keymta = 1\n"00112233445566778899" = "keymat"\n[5566778899aabb]\n', "x")
    root = Table(document, (), document.root, secret=True)
    root.get("keymat", values.boolean, default=False)
    root.close()
    with pytest.raises(DocumentError) as raised:
        document.raise_problems()
    assert str(raised.value).splitlines() == [
        "x:1: keymta: unknown key; did you mean keymat?",
        "x:2: *: unknown key; there are keymat",
        "x:3: *: unknown key; there are keymat",
    ]


def test_a_key_that_is_good_elsewhere_is_reported_once_with_its_reason() -> None:
    document = Document.parse("a = 1\n[t]\nb = 2", "f")
    table = Table(document, (), document.root).table("t")
    assert table.written("b") == 2
    table.refuse("b", "not here")
    table.refuse("c", "nor this")
    table.close()
    assert problems(document) == ["f:3: t.b: not here"]
    assert not table.sound
