import subprocess
import sys

import llamaindex_fusion


def test_package_exports_exactly_the_documented_names() -> None:
    assert llamaindex_fusion.__all__ == [
        "ChatClientLLM",
        "DistilledLLM",
        "FusionLLM",
        "FusionLogEventHandler",
        "FusionSelector",
        "LlamaIndexChatClient",
        "ThoughtTemplateQueryTransform",
        "ThoughtTemplateRetriever",
    ]
    assert all(getattr(llamaindex_fusion, name).__name__ == name for name in llamaindex_fusion.__all__)
    assert set(llamaindex_fusion.__all__) <= set(dir(llamaindex_fusion))


def test_package_when_imported_then_llama_index_stays_unloaded() -> None:
    code = "import sys, llamaindex_fusion; print('llama_index' in sys.modules)"

    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert result.stdout.strip() == "False"


def test_unknown_name_when_imported_then_attribute_error() -> None:
    assert not hasattr(llamaindex_fusion, "FusionSelectorr")


def test_missing_llama_index_when_name_is_used_then_error_names_the_extra() -> None:
    code = (
        "import sys; sys.modules['llama_index'] = None\n"
        "import llamaindex_fusion\n"
        "try:\n    llamaindex_fusion.FusionLLM\n"
        "except ImportError as error:\n    print(type(error).__name__, error)\n"
    )

    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert result.stdout.startswith("MissingDependencyError")
    assert "fusion-integrations[llamaindex]" in result.stdout
