import json
import sys

import pytest

from fusion_integrations._optional import require
from fusion_integrations.errors import MissingDependencyError


def test_require_when_the_module_is_there_returns_it():
    assert require("json", extra="train") is json


@pytest.mark.parametrize("module", ["no_such_package", "no_such_package.inner", "json.no_such_module"])
def test_require_when_the_module_is_absent_names_the_command(module):
    with pytest.raises(MissingDependencyError) as caught:
        require(module, extra="distill")
    assert f"'{module}'" in str(caught.value)
    assert "pip install 'fusion-integrations[distill]'" in str(caught.value)
    assert isinstance(caught.value.__cause__, ModuleNotFoundError)


def test_require_when_the_package_itself_lacks_something_passes_its_error_on(tmp_path, monkeypatch):
    # Installing the extra again would not help: the message must not say so.
    (tmp_path / "half_installed.py").write_text("import no_such_package\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="no_such_package") as caught:
        require("half_installed", extra="distill")
    assert not isinstance(caught.value, MissingDependencyError)


def test_require_when_the_package_is_broken_passes_its_error_on(tmp_path, monkeypatch):
    (tmp_path / "broken_package.py").write_text("raise OSError('libcuda.so is missing')\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(OSError, match="libcuda"):
        require("broken_package", extra="distill")


def test_require_when_an_import_is_blocked_names_the_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingDependencyError, match=r"fusion-integrations\[distill\]"):
        require("torch", extra="distill")
