"""Scores programs by running their tests: pass@1 of one answer."""

from __future__ import annotations

import ast
import builtins
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

from fusion_integrations.errors import LogSchemaError
from fusion_integrations.scoring.sandbox import run_sandboxed

__all__ = ["code_pass", "extract_program", "reference_with_prompt"]

_FENCE = re.compile(
    r"^[ \t]*(?:```|~~~)[ \t]*([\w+-]*)[^\n]*\n(.*?)(?:^[ \t]*(?:```|~~~)|\Z)", re.DOTALL | re.MULTILINE
)
_PYTHON_FENCES = frozenset({"", "python", "py", "python3", "pycon"})
# Marks around the code in MBPP's few-shot prompt, and around what Code Llama was taught to write.
_MARKS = (
    re.compile(r"\[BEGIN\](.*?)(?:\[DONE\]|\Z)", re.DOTALL),
    re.compile(r"\[PYTHON\](.*?)(?:\[/PYTHON\]|\Z)", re.DOTALL),
)
_FIRST_LINE_OF_CODE = re.compile(r"(?:from|import|def|async\s+def|class)\s+\w|@\w")
_LINE_OF_CODE = re.compile(
    r"\s|\#|[\])}@]|(?:from|import|def|async|class|if|for|while|with|assert|return|del|global|raise)\s"
    r"|(?:try|else|finally)\s*:|(?:elif|except)\b|[A-Za-z_][\w.]*\s*(?:[\[(]|[-+*/%|&^@]?=(?!=)|:\s*\w+\s*=)"
)
_DEFINITION = r"^[ \t]*(?:async[ \t]+)?(?:def|class)[ \t]+{name}\b"
_FUNCTION = re.compile(r"^def[ \t]+(\w+)[ \t]*\(", re.MULTILINE)
_CHECK_DEFINED = re.compile(r"^def[ \t]+check[ \t]*\(", re.MULTILINE)
_CHECK_CALLED = re.compile(r"^check[ \t]*\(", re.MULTILINE)
_CALL = re.compile(r"(?<![.\w])([A-Za-z_]\w*)\s*\(")

_TEXT_FIELDS = ("prompt", "entry_point", "test", "tests", "test_setup_code")
_FORMS = (
    "Python source of tests, a list of assert statements, or a JSON object with 'test' or 'test_list' and, "
    "if needed, 'prompt', 'entry_point' and 'test_setup_code'"
)


class _UnreadableError(Exception):
    """A reference holds no tests; says why."""


@dataclass(frozen=True, kw_only=True)
class _Tests:
    """What an answer is tested with.

    Attributes:
        source: Python that raises if the answer is wrong.
        setup: Python to run before the answer.
        prompt: Beginning of a program that the answer may go on with; empty if there is none.
        entry_point: Name of the function that the answer is to define; empty if unknown.
    """

    source: str
    setup: str = ""
    prompt: str = ""
    entry_point: str = ""


def code_pass(answer: str, reference: str) -> float:
    """Run an answer's program and its tests in a sandbox.

    Args:
        answer: What the candidate wrote, as it is: prose around code blocks is left out.
        reference: Tests: Python source, a list of assert statements as MBPP has it (JSON or a Python
            literal), or a JSON object with the fields of HumanEval (`prompt`, `entry_point`, `test`) or MBPP
            (`test_list`, `test_setup_code`).

    Returns:
        1 if all tests pass, within the limits of `SandboxLimits`, else 0.

    Raises:
        LogSchemaError: If the reference is none of these.
        SandboxUnavailableError: If this machine cannot isolate code; nothing was run.

    Source:
        pass@1 with one sample, of HumanEval (Chen et al. 2021) and MBPP (Austin et al. 2021).
    """
    try:
        tests = _read_tests(reference)
    except _UnreadableError as error:
        message = f"Metric 'code_pass' needs {_FORMS}; {error}. Got '{reference[:500]}'."
        raise LogSchemaError(message) from error
    program = extract_program(answer, entry_point=tests.entry_point)
    if not program.strip():
        return 0.0
    if tests.prompt:
        program = _with_prompt(program, tests)
    result = run_sandboxed(f"{tests.setup}\n{program}\n", tests=tests.source)
    return float(result.outcome == "passed")


def reference_with_prompt(reference: str, query: str) -> str:
    """Add to a reference what only the query says: the beginning of the program, as in HumanEval.

    Args:
        reference: A reference of `code_pass`.
        query: Text of the query that was asked.

    Returns:
        The reference with the query as prompt, if the query begins a function and the reference names no
        prompt; else the reference as it was.
    """
    functions = _FUNCTION.findall(query)
    fields = _fields(reference)
    if not functions or (fields is not None and fields.get("prompt")):
        return reference
    if fields is None:
        if not _CHECK_DEFINED.search(reference):
            return reference  # an MBPP query may quote code that is no beginning of the answer
        fields = {"test": reference}
    return json.dumps({"entry_point": functions[-1], **fields, "prompt": query})


def extract_program(answer: str, *, entry_point: str = "") -> str:
    """Take the code out of an answer.

    Args:
        answer: What the candidate wrote.
        entry_point: Function that is wanted; of several code blocks the first that defines it counts.

    Returns:
        The code block that defines what is wanted, else the first that defines anything, else the first. With
        no block the lines that read as code, empty if there are none. An answer that opens with an indented
        line is the body of a function and is returned whole.
    """
    marked = next((match for mark in _MARKS if (match := mark.search(answer))), None)
    text = marked[1].strip("\n") if marked else answer
    blocks = [code for language, code in _FENCE.findall(text) if language.lower() in _PYTHON_FENCES]
    for name in (re.escape(entry_point), r"\w+"):
        wanted = re.compile(_DEFINITION.format(name=name), re.MULTILINE)
        fitting = [block for block in blocks if name and wanted.search(block)]
        if fitting:
            return str(fitting[0])
    if blocks:
        return str(blocks[0])
    first = next((line for line in text.splitlines() if line.strip()), "")
    # At least two columns: some models begin every answer with a space.
    if first.startswith(("  ", "\t")):
        return text
    return _lines_of_code(text)


def _lines_of_code(text: str) -> str:
    """Leave out the prose before the first definition or import, and all from the first prose after it."""
    lines = text.strip().splitlines()
    first = next((i for i, line in enumerate(lines) if _FIRST_LINE_OF_CODE.match(line)), None)
    if first is None:
        return ""
    last = first
    while last < len(lines) and (not lines[last].strip() or _LINE_OF_CODE.match(lines[last])):
        last += 1
    return "\n".join(lines[first:last])


def _with_prompt(program: str, tests: _Tests) -> str:
    """Put a whole function behind the prompt's imports and helpers, and a body behind the whole prompt."""
    name = re.escape(tests.entry_point)
    if name and re.search(_DEFINITION.format(name=name), program, re.MULTILINE):
        start = re.search(_DEFINITION.format(name=name), tests.prompt, re.MULTILINE)
        return f"{tests.prompt[: start.start()] if start else ''}\n{program}"
    return f"{tests.prompt.rstrip()}\n{program}"


def _read_tests(reference: str) -> _Tests:
    fields = _fields(reference)
    if fields is None:
        tests = _Tests(source=reference)
    else:
        listed = fields.get("test_list", [])
        if not isinstance(listed, list) or not all(isinstance(test, str) for test in listed):
            raise _UnreadableError("'test_list' is no list of texts")
        wrong = [name for name in _TEXT_FIELDS if not isinstance(fields.get(name, ""), str)]
        if wrong:
            raise _UnreadableError(f"{wrong} are no texts")
        source = "\n".join([*listed, str(fields.get("test") or fields.get("tests") or "")])
        tests = _Tests(
            source=source,
            setup=str(fields.get("test_setup_code", "")),
            prompt=str(fields.get("prompt", "")),
            entry_point=str(fields.get("entry_point", "")),
        )
    if not re.search(r"\bassert\b|\bcheck\(", tests.source):
        raise _UnreadableError("this holds no test")
    return _calling_check(tests)


def _calling_check(tests: _Tests) -> _Tests:
    """Name the function under test, and call HumanEval's `check`, which only defines the tests."""
    if not _CHECK_DEFINED.search(tests.source) or _CHECK_CALLED.search(tests.source):
        # Of "assert sorted(f(1)) == [1]" the function under test is f.
        called = (name for name in _CALL.findall(tests.source) if not hasattr(builtins, name))
        name = tests.entry_point or next(called, "")
        return replace(tests, entry_point=name)
    if not tests.entry_point.isidentifier():
        raise _UnreadableError(
            "'check' is defined but nothing says which function to check: add 'entry_point'"
        )
    return replace(tests, source=f"{tests.source}\n\ncheck({tests.entry_point})\n")


def _fields(reference: str) -> Mapping[str, object] | None:
    """Read a JSON object or a list of tests; None for what is neither, which may be source code."""
    text = reference.strip()
    if not text.startswith(("{", "[")):
        return None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        try:
            value = ast.literal_eval(text)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            return None
    if isinstance(value, list):
        return {"test_list": value}
    return value if isinstance(value, dict) else None
