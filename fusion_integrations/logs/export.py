"""Take logs out of a store: a table for analysis, or lines that hold everything.

`import_logs("fusion", ...)` reads both back.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from fusion_integrations.errors import LogSchemaError
from fusion_integrations.logs.filters import LogFilter
from fusion_integrations.logs.frame import write_parquet
from fusion_integrations.logs.schema import LogRecord, Score
from fusion_integrations.logs.store import LogStore
from fusion_integrations.logs.whole_file import whole_file

__all__ = ["SCORES_FIELD", "export_logs"]

SCORES_FIELD = "scores"
"""Field of an exported line that lists the record's scores."""

_PAGE = 1_000  # records whose scores are read together


def export_logs(store: LogStore, path: str | Path, *, where: LogFilter | None = None) -> int:
    """Write records and scores to a file; it appears complete or not at all.

    Parquet holds one row a record in `LOG_SCHEMA`, with the latest score of each kind, and is built in
    memory. JSON lines hold one object a record, with all its scores in `"scores"`, and are written in
    constant memory; fields without a value are left out.

    Args:
        store: Where the logs are.
        path: A `.parquet` or `.jsonl` file; an existing one is replaced.
        where: Which records; None means all.

    Returns:
        How many records were written.

    Raises:
        LogSchemaError: If the file's suffix is another.
        LogStoreError: If the store fails or the file cannot be written; what was there before still is.
    """
    target = Path(path)
    where = where or LogFilter()
    suffix = target.suffix.lower()
    if suffix == ".parquet":
        frame = store.to_frame(where)
        write_parquet(frame, target)
        return frame.height
    if suffix != ".jsonl":
        raise LogSchemaError(f"'{target}' is of no known kind. Export to a .parquet or a .jsonl file.")
    n_records = 0
    with whole_file(target) as file:
        for line in _lines(store, where):
            file.write(line.encode() + b"\n")
            n_records += 1
    return n_records


def _lines(store: LogStore, where: LogFilter) -> Iterator[str]:
    records = store.records(where)
    while page := list(islice(records, _PAGE)):
        scores = store.scores_of(record.record_id for record in page)
        for record in page:
            yield _line(record, scores.get(record.record_id, []))


def _line(record: LogRecord, scores: list[Score]) -> str:
    fields = record.model_dump(mode="json", exclude_none=True)
    fields[SCORES_FIELD] = [score.model_dump(mode="json", exclude={"record_id"}) for score in scores]
    return json.dumps(fields, ensure_ascii=False)
