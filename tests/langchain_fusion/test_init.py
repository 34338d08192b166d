from __future__ import annotations

import subprocess
import sys

import pytest

import langchain_fusion


def test_exports_when_listed_then_are_the_documented_ones():
    documented = ["ChatClientModel", "FusionChatModel", "FusionRouter", "LangChainChatClient"]

    assert langchain_fusion.__all__ == documented
    assert all(hasattr(langchain_fusion, name) for name in documented)


def test_import_when_fresh_then_loads_no_heavy_package():
    heavy = {
        "torch",
        "transformers",
        "xgboost",
        "sklearn",
        "chromadb",
        "langchain",
        "langgraph",
        "llama_index",
    }
    code = f"import sys, langchain_fusion; print(sorted({heavy} & set(sys.modules)))"

    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert loaded.stdout.strip() == "[]"


def test_name_when_langchain_is_missing_then_names_the_extra():
    code = (
        "import sys; sys.modules['langchain_core'] = None\n"
        "import langchain_fusion\n"
        "try: langchain_fusion.FusionChatModel\n"
        "except ImportError as error: print(error)"
    )

    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert "fusion-integrations[langchain]" in said.stdout


def test_name_when_unknown_then_raises():
    with pytest.raises(AttributeError, match="nothing"):
        _ = langchain_fusion.nothing
