from __future__ import annotations

import json
import logging
import sys

import pytest
import typer

from fusion_integrations.cli.terminal import plain_table, terminal, usd_per_1000
from fusion_integrations.errors import UnknownCandidateError

MESSAGE = "There is no candidate '[red]x[/red]' :smile: " + "long " * 40 + "line."


def test_terminal_when_text_is_wanted_prints_names_as_they_are_and_leaves_long_lines_whole(capsys):
    with terminal(as_json=False, debug=False) as place:
        table = plain_table("title", text_columns=["name"], number_columns=["count"])
        table.add_row("[red]a[/red]", "1")
        place.show({}, MESSAGE, table)
    output = capsys.readouterr().out
    assert output.startswith(f"{MESSAGE}\n\ntitle")
    assert "[red]a[/red]" in output


def test_terminal_when_json_is_wanted_keeps_every_other_print_off_stdout(capsys):
    with terminal(as_json=True, debug=False) as place:
        sys.stdout.write("from a library\n")
        place.show({"name": "ä\ud800"}, "text")
    captured = capsys.readouterr()
    assert json.loads(captured.out) == {"name": "ä\ud800"}
    assert captured.err == "from a library\n"


def test_terminal_says_each_warning_of_the_library_once_and_off_stdout(capsys):
    logger = logging.getLogger("fusion_integrations.anything")
    for _ in range(2):
        with terminal(as_json=False, debug=False) as place:
            for name in ("[red]x[/red]", "[red]x[/red]", "y"):
                logger.warning("Fewer answers of %s", name)
            logger.info("not of interest")
            place.show({}, "result")
        captured = capsys.readouterr()
        assert captured.err == "Fewer answers of [red]x[/red]\nFewer answers of y\n"
        assert captured.out == "result\n"


@pytest.mark.parametrize("as_json", [False, True])
def test_terminal_when_the_body_fails_exits_1_with_the_message(as_json, capsys):
    with pytest.raises(typer.Exit) as caught, terminal(as_json=as_json, debug=False):
        raise UnknownCandidateError(MESSAGE)
    captured = capsys.readouterr()
    assert caught.value.exit_code == 1
    assert captured.err == f"Error: {MESSAGE}\n"
    expected = {"error": {"type": "UnknownCandidateError", "message": MESSAGE}}
    assert (json.loads(captured.out) if as_json else captured.out) == (expected if as_json else "")


def test_terminal_when_debugging_lets_the_error_through_after_the_document(capsys):
    with pytest.raises(UnknownCandidateError), terminal(as_json=True, debug=True):
        raise UnknownCandidateError(MESSAGE)
    assert json.loads(capsys.readouterr().out)["error"]["message"] == MESSAGE


def test_terminal_when_interrupted_exits_130_and_says_how_to_go_on(capsys):
    with (
        pytest.raises(typer.Exit) as caught,
        terminal(as_json=False, debug=False, if_interrupted="Run it again."),
    ):
        raise KeyboardInterrupt
    assert caught.value.exit_code == 130
    assert capsys.readouterr().err == "Error: Run it again.\n"


def test_terminal_when_an_error_is_a_bug_lets_it_through():
    with pytest.raises(ZeroDivisionError), terminal(as_json=False, debug=False):
        _ = 1 / 0


def test_usd_per_1000_when_cost_is_unknown_says_so():
    assert [usd_per_1000(0.0000125), usd_per_1000(None)] == ["0.0125", "unknown"]
