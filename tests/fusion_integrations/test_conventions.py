"""What the source keeps to, whoever writes it; linters check the rest."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("fusion_integrations", "langchain_fusion", "llamaindex_fusion")
SOURCES = {
    str(path.relative_to(ROOT)): path
    for package in PACKAGES
    for path in sorted((ROOT / package).rglob("*.py"))
}
TREES = {name: ast.parse(path.read_text()) for name, path in SOURCES.items()}

# Formats that run code when read, and calls that run text.
UNSAFE_MODULES = {"cloudpickle", "dill", "joblib", "marshal", "pickle", "shelve"}
UNSAFE_CALLS = {"__import__", "compile", "eval", "exec", "os.popen", "os.system"}
UNSAFE_CALLS |= {"yaml.full_load", "yaml.load", "yaml.unsafe_load"}
VAGUE_NAMES = {"common", "helpers", "misc", "utils"}


def imported(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        if isinstance(node, ast.ImportFrom):
            yield (node.module or "").split(".")[0]


def calls(tree):
    """Yield every call with the dotted name of what is called, as far as it has one."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            parts, target = [], node.func
            while isinstance(target, ast.Attribute):
                parts.append(target.attr)
                target = target.value
            parts.append(target.id if isinstance(target, ast.Name) else "?")
            yield ".".join(reversed(parts)), node


def keywords(node):
    return {keyword.arg: getattr(keyword.value, "value", None) for keyword in node.keywords}


def unsafe_parts(tree):
    """Yield what could run code that came in as data."""
    yield from UNSAFE_MODULES & set(imported(tree))
    for name, node in calls(tree):
        given = keywords(node)
        if name in UNSAFE_CALLS:
            yield name
        if name == "torch.load" and given.get("weights_only") is not True:
            yield name
        if name.startswith("subprocess.") and given.get("shell"):
            yield name
        if given.get("trust_remote_code") or given.get("allow_pickle"):
            yield f"{name} trusts what it reads"
    for node in ast.walk(tree):
        pairs = zip(node.keys, node.values, strict=True) if isinstance(node, ast.Dict) else ()
        for key, value in pairs:
            if getattr(key, "value", None) == "trust_remote_code" and getattr(value, "value", 1) is not False:
                yield "trust_remote_code"


@pytest.mark.parametrize("name", SOURCES)
def test_file_has_at_most_400_lines_a_docstring_and_a_name_that_says_something(name):
    assert len(SOURCES[name].read_text().splitlines()) <= 400
    assert ast.get_docstring(TREES[name])
    assert SOURCES[name].stem not in VAGUE_NAMES


def code_lines(function):
    """Lines of a function without its docstring, which may be as long as it has to."""
    doc = function.body[0] if ast.get_docstring(function) else None
    return function.end_lineno - function.lineno + 1 - (doc.end_lineno - doc.lineno + 1 if doc else 0)


@pytest.mark.parametrize("name", SOURCES)
def test_functions_have_at_most_60_lines(name):
    lengths = {
        node.name: code_lines(node)
        for node in ast.walk(TREES[name])
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    assert {function: length for function, length in lengths.items() if length > 60} == {}


@pytest.mark.parametrize("name", SOURCES)
def test_source_runs_no_code_that_came_in_as_data(name):
    assert list(unsafe_parts(TREES[name])) == []


@pytest.mark.parametrize(
    "name", [name for name in SOURCES if not name.startswith("fusion_integrations/cli/")]
)
def test_only_the_command_line_prints(name):
    assert [call for call, _ in calls(TREES[name]) if call in ("print", "breakpoint", "pprint.pprint")] == []


@pytest.mark.parametrize("name", [name for name in SOURCES if name != "fusion_integrations/testing.py"])
def test_production_code_does_not_import_the_test_helpers(name):
    modules = [node.module for node in ast.walk(TREES[name]) if isinstance(node, ast.ImportFrom)]
    assert "fusion_integrations.testing" not in modules


@pytest.mark.parametrize(
    "text",
    [
        "import pickle",
        "from joblib import load",
        "eval('1')",
        "yaml.load(file)",
        "torch.load(path)",
        "np.load(path, allow_pickle=True)",
        "from_pretrained(path, trust_remote_code=True)",
        "settings = {'trust_remote_code': True}",
        "subprocess.run('ls', shell=True)",
    ],
)
def test_the_check_for_unsafe_code_finds_it(text):
    assert list(unsafe_parts(ast.parse(text)))


@pytest.mark.parametrize(
    "text",
    [
        "model.eval()",
        "Model().eval()",
        "re.compile('x')",
        "yaml.safe_load(f)",
        "torch.load(p, weights_only=True)",
    ],
)
def test_the_check_for_unsafe_code_lets_harmless_code_pass(text):
    assert not list(unsafe_parts(ast.parse(text)))
