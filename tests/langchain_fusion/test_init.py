from __future__ import annotations

import subprocess
import sys

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
