"""Importers of logs you already have, one file a format."""

from __future__ import annotations

from fusion_integrations.logs.importers.fusion import import_fusion
from fusion_integrations.logs.importers.table import ColumnMapping, ImportReport, import_table

__all__ = ["ColumnMapping", "ImportReport", "import_fusion", "import_table"]
