"""Records to test with, fixed ones and Hypothesis strategies for any, and a PostgreSQL server for them."""

import itertools
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import strategies as st
from sqlalchemy import create_engine

import fusion_integrations
from fusion_integrations.logs.schema import LogRecord, Score
from fusion_integrations.types import Message

_SCHEMA_NUMBERS = itertools.count()
NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)


@pytest.fixture(scope="session")
def make_record() -> Callable[..., LogRecord]:
    """Make a valid record; every call with the same number makes the same one."""

    def make(number: int = 0, **fields: object) -> LogRecord:
        defaults: dict[str, object] = {
            "record_id": f"r{number}",
            "messages": (Message(role="user", content=f"What is {number} + 1?"),),
            "candidate_id": "small",
            "model": "small",
            "response": str(number + 1),
            "created_at": NOON,
            "source": "test",
        }
        return LogRecord(**(defaults | fields))

    return make


@pytest.fixture(scope="session")
def make_score() -> Callable[..., Score]:
    """Make a valid score."""

    def make(record_id: str = "r0", **fields: object) -> Score:
        defaults: dict[str, object] = {
            "record_id": record_id,
            "kind": "performance",
            "scorer": "exact_match",
            "version": "1",
            "value": 1.0,
            "created_at": NOON,
        }
        return Score(**(defaults | fields))

    return make


@pytest.fixture(scope="session")
def any_record() -> st.SearchStrategy[LogRecord]:
    """Strategy for every record that the schema allows."""
    names = st.text(min_size=1, max_size=20).filter(lambda text: bool(text.strip()))
    texts = st.none() | st.text(max_size=20)
    counts = st.none() | st.integers(0, 2**63 - 1)
    amounts = st.none() | st.floats(0, allow_infinity=False, allow_nan=False)
    roles = st.sampled_from(["system", "user", "assistant", "tool"])
    messages = st.lists(st.builds(Message, role=roles, content=st.text(max_size=20)), max_size=3)
    question = st.builds(Message, role=st.just("user"), content=names)
    # Both, and neither, do not exist: an answer or an error, or an imported record without its answer.
    outcome = st.one_of(
        st.fixed_dictionaries({"response": st.text(max_size=20)}),
        st.fixed_dictionaries({"error": st.text(max_size=20)}),
        st.just({}),
    )
    fields = st.fixed_dictionaries(
        {
            "record_id": names,
            "messages": st.builds(lambda before, last: (*before, last), messages, question),
            "task": texts,
            "reference": texts,
            "metric": texts,
            "candidate_id": names,
            "candidate_revision": st.text(max_size=5),
            "model": st.text(max_size=5),
            "prompt_mode": st.sampled_from(["direct", "reasoning", "thought"]),
            "planned_candidate_id": st.none() | names,
            "finish_reason": texts,
            "input_tokens": counts,
            "output_tokens": counts,
            "cost_usd": amounts,
            "latency_s": amounts,
            "assignment": st.sampled_from(["factorial", "policy", "user", "unknown"]),
            "propensity": st.none() | st.floats(0, 1, exclude_min=True),
            "eligible": st.lists(names, max_size=3).map(tuple),
            "session_id": texts,
            "created_at": st.datetimes(timezones=st.just(UTC)),
            "source": names,
            "source_id": texts,
            "sample": st.integers(0, 2**63 - 1),
        }
    )
    return st.builds(lambda given, result: LogRecord(**given, **result), fields, outcome)


@pytest.fixture(scope="session")
def start_python() -> Callable[..., "subprocess.Popen[str]"]:
    """Start a Python process that runs a script with this package; its streams are pipes."""

    def start(script: str, *arguments: object) -> "subprocess.Popen[str]":
        root = Path(fusion_integrations.__file__).parents[1]
        return subprocess.Popen(
            [sys.executable, "-W", "error", "-c", script, *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": str(root)},
        )

    return start


def _postgres_programs() -> Path | None:
    """Find where Debian, or the PATH, keeps the programs of the newest PostgreSQL."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: float(path.parent.name))
    on_path = shutil.which("initdb")
    return found[-1] if found else Path(on_path).parent if on_path else None


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """Start a PostgreSQL server on this machine, for this run alone."""
    programs = _postgres_programs()
    if programs is None:
        message = "PostgreSQL is not installed: apt-get install postgresql"
        (pytest.fail if "CI" in os.environ else pytest.skip)(message)
    # The server refuses to run as root.
    as_user = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        if as_user:
            shutil.chown(folder, "postgres")
        data = f"{folder}/data"

        def run(program: str, *arguments: str) -> None:
            command = [*as_user, str(programs / program), "-D", data, *arguments]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd="/")

        run("initdb", "--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C.UTF-8")
        options = f"-h 127.0.0.1 -p {port} -k {folder}"
        run("pg_ctl", "start", "-w", "-l", f"{folder}/log", "-o", options)
        try:
            yield f"postgresql://postgres@127.0.0.1:{port}/postgres"
        finally:
            run("pg_ctl", "stop", "-m", "immediate", "-w")


@pytest.fixture
def new_postgres(postgres_url: str) -> Callable[[], str]:
    """Make a schema of its own on the server and give its URL."""

    def make() -> str:
        schema = f"logs_{next(_SCHEMA_NUMBERS)}"
        engine = create_engine(postgres_url.replace("postgresql:", "postgresql+psycopg:"))
        with engine.begin() as connection:
            connection.exec_driver_sql(f"CREATE SCHEMA {schema}")
        engine.dispose()
        return f"{postgres_url}?options=-csearch_path%3D{schema}"

    return make


@pytest.fixture(params=["sqlite", "postgresql"])
def new_location(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], str]:
    """Give places where there is no log store yet, of both kinds of database."""
    if request.param == "postgresql":
        make: Callable[[], str] = request.getfixturevalue("new_postgres")
        return make
    numbers = itertools.count()
    return lambda: str(tmp_path / f"logs{next(numbers)}.sqlite")


@pytest.fixture
def location(new_location: Callable[[], str]) -> str:
    """A place where there is no log store yet."""
    return new_location()
