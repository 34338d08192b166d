from __future__ import annotations

from pathlib import Path

from fusion_integrations._cache import cache_dir


def test_cache_dir_when_variables_are_set_follows_them_in_order(monkeypatch, tmp_path):
    monkeypatch.setenv("FUSION_CACHE", str(tmp_path / "own"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_dir() == tmp_path / "own"
    monkeypatch.delenv("FUSION_CACHE")
    assert cache_dir() == tmp_path / "xdg" / "fusion-integrations"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_dir() == Path.home() / ".cache" / "fusion-integrations"
