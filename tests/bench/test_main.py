"""The command line of the measurements."""

from __future__ import annotations

import pytest

from bench.__main__ import main


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "arguments are required: NAME (see python -m bench --help)"),
        (["kying"], "invalid choice: 'kying'"),
        (["keying", "--json", "x"], "unrecognized arguments: x"),
        (["engine", "--suite", "des"], "argument --suite: invalid choice: 'des'"),
        (["soak", "--loss", "51"], "argument --loss: invalid percentage value: '51'"),
        (["soak", "--whole", "--split"], "argument --split: not allowed with argument --whole"),
    ],
)
def test_bad_arguments_are_one_line_and_exit_code_2(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    found = capsys.readouterr()
    assert not found.out
    assert said in found.err
    assert found.err.startswith("bench: ")
    assert found.err.count("\n") == 1
