from __future__ import annotations

import subprocess
import sys

import pytest

import langchain_fusion


def test_exports_when_listed_then_are_the_documented_ones():
    documented = [
        "ChatClientModel",
        "DistilledChatModel",
        "FusionChatModel",
        "FusionLogCallbackHandler",
        "FusionModelMiddleware",
        "FusionRouter",
        "LangChainChatClient",
        "PromptedToolsChatModel",
        "ThoughtTemplatePrompt",
        "ThoughtTemplateRetriever",
    ]

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


@pytest.mark.parametrize(
    ("missing", "name", "extra"),
    [("langchain_core", "FusionChatModel", "langchain"), ("langchain", "FusionModelMiddleware", "agents")],
)
def test_name_when_its_framework_is_missing_then_names_the_extra(missing, name, extra):
    code = (
        f"import sys; sys.modules['{missing}'] = None\n"
        "import langchain_fusion\n"
        f"try: langchain_fusion.{name}\n"
        "except ImportError as error: print(error)"
    )

    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert f"fusion-integrations[{extra}]" in said.stdout


def test_name_when_it_is_not_the_middleware_then_needs_no_agent_framework():
    code = (
        "import sys; sys.modules['langchain'] = sys.modules['langgraph'] = sys.modules['torch'] = None\n"
        "import langchain_fusion\n"
        "for name in set(langchain_fusion.__all__) - {'FusionModelMiddleware'}:\n"
        "    getattr(langchain_fusion, name)"
    )

    subprocess.run([sys.executable, "-c", code], check=True)


def test_name_when_unknown_then_raises():
    with pytest.raises(AttributeError, match="nothing"):
        _ = langchain_fusion.nothing
