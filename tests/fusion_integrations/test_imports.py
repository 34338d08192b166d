"""Importing any module is light and free of side effects, and every public name is really there."""

from __future__ import annotations

import ast
import importlib
import json
import pkgutil
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import fusion_integrations

ROOT = Path(__file__).parents[2]
PACKAGES = ("fusion_integrations", "langchain_fusion", "llamaindex_fusion")
HEAVY = (
    "chromadb",
    "gguf",
    "langchain",
    "langchain_core",
    "llama_index",
    "math_verify",
    "onnxruntime",
    "openai",
    "peft",
    "plotly",
    "sentence_transformers",
    "sklearn",
    "sympy",
    "tokenizers",
    "torch",
    "transformers",
    "trl",
    "vllm",
    "wordllama",
    "xgboost",
)

CORE = sorted(
    module.name
    for module in pkgutil.walk_packages(fusion_integrations.__path__, "fusion_integrations.")
    if module.name != "fusion_integrations.logs.migrations.env"  # a script that Alembic runs
)
PUBLIC = [name for name in CORE if not any(part.startswith("_") for part in name.split("."))]

_PROBE = """
import importlib, json, logging, os, sys

environment, path = dict(os.environ), list(sys.path)
found = {}
for name in sys.argv[2:]:
    importlib.import_module(name)
    for package in json.loads(sys.argv[1]):
        if package in sys.modules:
            found.setdefault(package, name)
print(json.dumps({
    "heavy": found,
    "environment": sorted(key for key in os.environ if os.environ[key] != environment.get(key)),
    "path": sys.path == path,
    "handlers": [str(h) for n in logging.root.manager.loggerDict if n.startswith("fusion_integrations")
                 for h in logging.getLogger(n).handlers] + [str(h) for h in logging.root.handlers],
}))
"""


def probe(*modules):
    command = [sys.executable, "-W", "error", "-c", _PROBE, json.dumps(HEAVY), *modules]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


def test_importing_the_core_loads_no_heavy_package_and_leaves_the_process_as_it_was():
    seen = probe("fusion_integrations", *CORE)
    seen["environment"] = [name for name in seen["environment"] if name != "_RJEM_MALLOC_CONF"]  # by Polars
    assert seen == {"heavy": {}, "environment": [], "path": True, "handlers": []}


def test_using_every_name_of_the_package_loads_no_heavy_package():
    code = "import fusion_integrations as f, sys; [getattr(f, n) for n in f.__all__]; print(*sys.modules)"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True
    )
    assert not set(HEAVY) & set(result.stdout.split())


def rank(name):
    """Constants, then classes, then functions, each by name: the order ruff keeps."""
    return (0 if name.isupper() else 1 if name[0].isupper() else 2, name)


@pytest.mark.parametrize("name", ["fusion_integrations", *PUBLIC])
def test_all_of_a_module_is_sorted_without_repeats_and_every_name_is_there(name):
    module = importlib.import_module(name)
    exported = getattr(module, "__all__", None)
    if exported is None:
        # A package may have no names of its own: its modules are its content.
        assert hasattr(module, "__path__"), f"{name} has no __all__"
        return
    assert list(exported) == sorted(set(exported), key=rank)
    for public in exported:
        assert getattr(module, public, None) is not None, f"{name}.{public}"
        assert not public.startswith("_")


def test_unknown_name_of_the_package_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = fusion_integrations.nothing


def test_dir_of_the_package_lists_every_public_name():
    assert set(fusion_integrations.__all__) <= set(dir(fusion_integrations))


def test_the_package_says_which_release_it_is():
    with (ROOT / "pyproject.toml").open("rb") as file:
        assert tomllib.load(file)["project"]["version"] == fusion_integrations.__version__


def extras_named_in_the_source():
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text())):
                if (
                    isinstance(node, ast.keyword)
                    and node.arg == "extra"
                    and isinstance(node.value, ast.Constant)
                ):
                    yield path.relative_to(ROOT), node.value.value
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    for group in re.findall(r"fusion-integrations\[([\w, -]+)\]", node.value):
                        yield from ((path.relative_to(ROOT), extra.strip()) for extra in group.split(","))


def test_every_extra_that_a_message_names_exists():
    with (ROOT / "pyproject.toml").open("rb") as file:
        declared = tomllib.load(file)["project"]["optional-dependencies"]
    named = [item for item in extras_named_in_the_source() if item[1] not in ("forbid", "ignore", "allow")]
    assert len({extra for _, extra in named}) >= 5
    assert [item for item in named if item[1] not in declared] == []
    requirements = [line for lines in declared.values() for line in lines]
    for line in requirements:
        for group in re.findall(r"fusion-integrations\[([\w,-]+)\]", line):
            assert set(group.split(",")) <= set(declared), line
