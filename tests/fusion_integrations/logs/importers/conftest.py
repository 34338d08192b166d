"""Files to import, and a store to import them into."""

import csv
import importlib.util
import json
import sys
from pathlib import Path

import polars as pl
import pytest

from fusion_integrations.logs.store import LogStore


@pytest.fixture
def store():
    with LogStore.open(":memory:") as opened:
        yield opened


@pytest.fixture(scope="session")
def write_rows():
    """Write rows as the kind of file the suffix says; give back the path."""

    def write(path, rows):
        if path.suffix == ".parquet":
            pl.DataFrame(rows).write_parquet(path)
        elif path.suffix == ".jsonl":
            path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        else:
            with path.open("w", newline="") as file:
                writer = csv.DictWriter(file, rows[0], delimiter="\t" if path.suffix == ".tsv" else ",")
                writer.writeheader()
                writer.writerows(rows)
        return path

    return write


@pytest.fixture(scope="session")
def samples():
    """Logs in every format; the module `samples.py` beside this file."""
    spec = importlib.util.spec_from_file_location("importer_samples", Path(__file__).with_name("samples.py"))
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module
