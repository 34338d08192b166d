"""Import optional packages at the moment they are needed; a missing one names the extra to install."""

from __future__ import annotations

import importlib
from types import ModuleType

from fusion_integrations.errors import MissingDependencyError


def require(module: str, *, extra: str) -> ModuleType:
    """Import an optional module.

    Args:
        module: Dotted import name, for example `"torch"`.
        extra: The extra of this distribution that installs it.

    Returns:
        The imported module.

    Raises:
        MissingDependencyError: If the package is absent; names the command that adds it.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not (module == error.name or module.startswith(error.name + ".")):
            raise  # the package is there, something it needs itself is not: a different repair
        message = (
            f"This needs the package '{module}', which is not installed. "
            f"Run: pip install 'fusion-integrations[{extra}]'"
        )
        raise MissingDependencyError(message) from error
