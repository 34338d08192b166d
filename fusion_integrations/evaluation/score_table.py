"""Read tables of who scored what: one row a query and LLM, the form benchmarks are shared in."""

from __future__ import annotations

import logging
from pathlib import Path

import polars as pl

from fusion_integrations.errors import LogSchemaError
from fusion_integrations.logs.frame import LOG_SCHEMA, check_schema

__all__ = ["read_score_table", "score_tables_in"]

logger = logging.getLogger(__name__)

# Column of the table -> column of the logs. The first four must be there, all others may be; of two that
# stand for the same the later is read.
_COLUMNS = {
    "query_id": "query_id",
    "query": "query_text",
    "llm": "candidate_id",
    "performance": "performance",
    "task": "task",
    "cost": "cost_usd",
    "cost_usd": "cost_usd",
    "input_tokens": "input_tokens",
    "output_tokens": "output_tokens",
    "latency_s": "latency_s",
    "propensity": "propensity",
    "judge_score": "judge_score",
}
_EXPORTED = {"query_text", "candidate_id"}  # what exported logs have in place of query and llm
_REQUIRED = ("query_id", "query", "llm", "performance")


def score_tables_in(folder: str | Path) -> list[Path]:
    """List the tables of a folder.

    Args:
        folder: A folder of Parquet files, or one such file.

    Returns:
        The files, sorted by name.

    Raises:
        LogSchemaError: If there is none.
    """
    place = Path(folder)
    if not place.exists():
        message = f"'{folder}' does not exist. Pass a folder of .parquet files, one of them, or a log store."
        raise LogSchemaError(message)
    found = [place] if place.is_file() else sorted(filter(_is_table, place.iterdir()))
    if not found:
        message = f"'{folder}' holds no .parquet file. Pass a folder of tables with the columns {_REQUIRED}."
        raise LogSchemaError(message)
    return found


def read_score_table(path: str | Path) -> pl.DataFrame:
    """Read one table as logs.

    Args:
        path: A Parquet file with the columns query_id, query, llm and performance (in [0, 1]), and any of
            task, cost or cost_usd (USD a call), input_tokens, output_tokens, latency_s, propensity and
            judge_score. Other columns are not read, nor, with a warning, are optional ones of another type,
            nor cost beside cost_usd. Rows without a performance are left out. Exported logs, in
            `LOG_SCHEMA`, are read as they are.

    Returns:
        A frame in `LOG_SCHEMA`; an LLM is a model candidate in direct mode.

    Raises:
        LogSchemaError: If the file cannot be read, lacks one of the four columns, one is of another type, or
            a scored row lacks its query or LLM, or an id stands for several queries.
    """
    try:
        names = pl.read_parquet_schema(path).keys()
        if not _EXPORTED.isdisjoint(names) and {"query", "llm"}.isdisjoint(names):
            return _exported(path, [name for name in LOG_SCHEMA if name in names])
        present = [name for name in _COLUMNS if name in names]
        table = pl.read_parquet(path, columns=present)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise LogSchemaError(f"'{path}' cannot be read as Parquet: {error}") from error
    missing = [name for name in _REQUIRED if name not in present]
    if missing:
        message = f"'{path}' lacks the columns {missing}. It has {sorted(names)}; rename what they are."
        raise LogSchemaError(message)
    columns = _columns(table, path=path)
    logs = (
        pl.DataFrame(columns)
        .filter(pl.col("performance").is_not_null())
        .with_row_index("_row")
        .with_columns(
            pl.col("candidate_id").alias("model"),
            pl.lit("direct").alias("prompt_mode"),
            pl.col("_row").cast(pl.String).alias("record_id"),
            *(
                pl.lit(None, dtype=wanted).alias(name)
                for name, wanted in LOG_SCHEMA.items()
                if name not in {*columns, "model", "prompt_mode", "record_id"}
            ),
        )
        .select(LOG_SCHEMA.names())
    )
    holes = logs.select(
        pl.any_horizontal(pl.col("query_id", "query_text", "candidate_id").is_null()).sum()
    ).item()
    if holes:
        message = (
            f"{holes} scored rows of '{path}' lack query_id, query or llm. Fill them in, or leave them out."
        )
        raise LogSchemaError(message)
    texts = logs.group_by("query_id").agg(pl.col("query_text").n_unique())
    shared = texts.filter(pl.col("query_text") > 1)["query_id"].sort()
    if len(shared):
        message = (
            f"{len(shared)} query ids of '{path}' stand for several texts, such as '{shared[0]}'. Give each "
            "query an id of its own, for example its task and number."
        )
        raise LogSchemaError(message)
    return logs


def _exported(path: str | Path, present: list[str]) -> pl.DataFrame:
    logs = pl.read_parquet(path, columns=present)
    check_schema(logs.schema, label=f"'{path}'")
    return logs.select(LOG_SCHEMA.names())


def _is_table(path: Path) -> bool:
    return path.suffix.lower() == ".parquet" and not path.name.startswith(".")


def _columns(table: pl.DataFrame, *, path: str | Path) -> dict[str, pl.Series]:
    """Cast the columns of a table to what logs hold, under the names of logs."""
    found: dict[str, tuple[str, pl.Series]] = {}
    for name, target in _COLUMNS.items():
        if name not in table.columns:
            continue
        try:
            values = _cast(table[name], LOG_SCHEMA[target])
        except pl.exceptions.PolarsError as error:
            why = str(error).partition("\n")[0]
            if name in _REQUIRED:
                message = f"'{path}': '{name}' is of another type than expected: {why}"
                raise LogSchemaError(message) from error
            logger.warning("'%s': '%s' is of another type than expected and not read: %s", path, name, why)
            continue
        if target in found:
            logger.warning("'%s': '%s' is read, '%s' beside it is not.", path, name, found[target][0])
        found[target] = name, values.alias(target)
    return {target: values for target, (_, values) in found.items()}


def _cast(values: pl.Series, wanted: pl.DataType) -> pl.Series:
    if wanted.is_numeric() and values.dtype.is_temporal():
        message = f"a {values.dtype} counts in no unit that the logs have"
        raise pl.exceptions.InvalidOperationError(message)
    # NaN is an unknown value; a text may say NaN too.
    known = values.fill_nan(None) if values.dtype.is_float() else values
    cast = known.cast(wanted)
    return cast.fill_nan(None) if wanted.is_float() else cast
