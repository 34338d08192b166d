from __future__ import annotations

import math
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save

from fusion_integrations.artifacts import load_artifact, save_artifact
from fusion_integrations.errors import ArtifactFormatError, ArtifactWriteError

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text("abé ", max_size=3), inner, max_size=3)
    ),
    max_leaves=8,
)
OBJECT = st.dictionaries(st.text("abc._", max_size=5), JSON, max_size=4)
FILES = st.dictionaries(st.from_regex(r"[a-z0-9][a-z0-9._-]{0,20}", fullmatch=True), st.binary(max_size=64))


@settings(deadline=None, max_examples=40)
@given(files=FILES, arguments=OBJECT, metrics=OBJECT, details=OBJECT, candidates=st.lists(OBJECT, max_size=3))
def test_save_when_loaded_again_then_gives_equal_content(files, arguments, metrics, details, candidates):
    with tempfile.TemporaryDirectory() as folder:
        saved = save_artifact(
            folder,
            kind="template_library",
            files=files,
            card="# Card\n",
            candidates=candidates,
            arguments=arguments,
            metrics=metrics,
            details=details,
        )
        loaded = load_artifact(folder, kind="template_library", expected_digest=saved.digest)
        paths = load_artifact(folder, kind="template_library", keep="paths")
        reread = {name: paths.read_bytes(name) for name in files}
    assert loaded.manifest == saved
    assert {name: loaded.read_bytes(name) for name in files} == files == reread
    assert (loaded.manifest.arguments, loaded.manifest.metrics) == (arguments, metrics)
    assert (loaded.manifest.details, list(loaded.manifest.candidates)) == (details, candidates)


def test_save_when_done_then_holds_manifest_card_and_one_data_folder(tmp_path, save_router):
    manifest = save_router(tmp_path / "deep" / "router")
    names = {path.relative_to(tmp_path / "deep" / "router").as_posix() for path in tmp_path.rglob("*.*")}
    assert names == {
        "manifest.json",
        "README.md",
        f"{manifest.data_folder}/head.bin",
        f"{manifest.data_folder}/vocabulary.jsonl",
    }
    assert (tmp_path / "deep" / "router" / "README.md").read_text() == "# A router\n"


def test_save_when_repeated_then_has_the_same_digest_and_leaves_one_data_folder(tmp_path, save_router):
    first, second = save_router(tmp_path), save_router(tmp_path)
    assert first.digest == second.digest
    assert [path.name for path in tmp_path.glob("data-*")] == [second.data_folder]


def test_save_when_an_artifact_is_there_then_replaces_it_with_its_card(tmp_path, save_router):
    save_router(tmp_path)
    save_router(tmp_path, files={"other.bin": b"new"}, card="# New\n")
    assert load_artifact(tmp_path, kind="router").contents == {"other.bin": b"new"}
    assert (tmp_path / "README.md").read_text() == "# New\n"


def test_save_when_a_file_is_a_function_then_hashes_what_it_wrote(tmp_path, save_router):
    weights = {"w": np.arange(6, dtype=np.float32)}
    save_router(tmp_path, files={"w.safetensors": lambda path: path.write_bytes(save(weights))})
    assert load_artifact(tmp_path, kind="router").read_bytes("w.safetensors") == save(weights)


@pytest.mark.parametrize("name", ["../x", "a/b", "/x", ".hidden", "", "a\\b", "a\n", "x" * 101, "é.bin"])
def test_save_when_a_file_name_is_not_plain_then_writes_nothing(tmp_path, save_router, name):
    with pytest.raises(ArtifactFormatError, match="Cannot save"):
        save_router(tmp_path / "router", files={name: b""})
    assert list(tmp_path.iterdir()) == []


def test_save_when_names_differ_only_in_case_then_raises_a_format_error(tmp_path, save_router):
    with pytest.raises(ArtifactFormatError, match="differ only in case"):
        save_router(tmp_path / "router", files={"a.bin": b"", "A.bin": b""})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("metrics", {"reward": math.nan}),
        ("details", {"deep": [1.0, math.inf]}),
        ("arguments", {"path": Path("x")}),
        ("arguments", {"reward": np.float32(1)}),
        ("details", {"query": "\ud800"}),
    ],
)
def test_save_when_a_value_is_not_json_then_names_the_field_and_writes_nothing(
    tmp_path, save_router, field, value
):
    with pytest.raises(ArtifactFormatError, match=field):
        save_router(tmp_path / "router", **{field: value})
    assert list(tmp_path.iterdir()) == []


def test_save_when_the_manifest_would_be_huge_then_says_where_to_put_the_data(tmp_path, save_router):
    with pytest.raises(ArtifactWriteError, match="Put large data into `files`"):
        save_router(tmp_path / "router", details={"text": "x" * 2**24})
    assert list(tmp_path.iterdir()) == []


def test_save_when_the_folder_holds_other_things_then_refuses(tmp_path, save_router):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(ArtifactWriteError, match=r"is not an artifact: it holds 'thesis\.tex'"):
        save_router(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_save_when_the_folder_is_a_file_then_refuses(tmp_path, save_router):
    (tmp_path / "router").write_text("x")
    with pytest.raises(ArtifactWriteError, match="in the way"):
        save_router(tmp_path / "router")


def test_save_when_the_folder_holds_another_kind_then_refuses(tmp_path, save_router):
    save_router(tmp_path)
    with pytest.raises(ArtifactWriteError, match="holds a router, which a student does not replace"):
        save_router(tmp_path, kind="student")
    load_artifact(tmp_path, kind="router")


def test_save_when_the_manifest_there_is_damaged_then_refuses(tmp_path, save_router):
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(ArtifactWriteError, match="is not replaced, for it cannot be read"):
        save_router(tmp_path)


def test_save_when_the_folder_is_a_fresh_clone_then_saves_beside_its_hidden_files(tmp_path, save_router):
    (tmp_path / ".gitattributes").write_text("*.bin filter=lfs")
    save_router(tmp_path)
    assert (tmp_path / ".gitattributes").exists()


def test_save_when_a_function_fails_then_keeps_the_old_artifact_and_leaves_nothing(tmp_path, save_router):
    old = save_router(tmp_path)
    before = sorted(tmp_path.rglob("*"))

    def fail(path: Path) -> None:
        path.write_bytes(b"half")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        save_router(tmp_path, files={"head.bin": fail})
    assert sorted(tmp_path.rglob("*")) == before
    load_artifact(tmp_path, kind="router", expected_digest=old.digest)


@pytest.mark.parametrize(
    ("writer", "message"),
    [
        (lambda path: None, "made no file of that name"),
        (lambda path: path.symlink_to("/etc/hostname"), "made no file of that name"),
        (lambda path: (path.touch(), path.with_name("stray").touch()), "also made 'stray'"),
    ],
)
def test_save_when_a_function_writes_something_else_then_raises_a_write_error(
    tmp_path, save_router, writer, message
):
    with pytest.raises(ArtifactWriteError, match=message):
        save_router(tmp_path / "router", files={"head.bin": writer})
    assert list(tmp_path.iterdir()) == []


# The processes below save this artifact, once as number 1 and once as number 2, then misbehave.
SAVE_NUMBER = """
import os, signal, sys
from datetime import UTC, datetime
from pathlib import Path
from fusion_integrations.artifacts import load_artifact, save_artifact
from fusion_integrations.errors import ArtifactNotFoundError, ArtifactWriteError

folder = Path(sys.argv[1])
FILE_EVENTS = {"open", "os.rename", "os.mkdir", "os.rmdir", "os.remove", "os.listdir", "os.scandir"}

def save(number, size=2000):
    content = str(number).encode() * size
    save_artifact(folder, kind="router", files={"a.bin": content, "b.bin": content}, card=f"# {number}",
                  details={"number": number})

def load():
    loaded = load_artifact(folder, kind="router")
    content = str(loaded.manifest.details["number"]).encode()
    assert set(loaded.contents) == {"a.bin", "b.bin"}
    assert all(data == content * len(data) and data for data in loaded.contents.values())
    return loaded.manifest.details["number"]
"""


def run(script: str, *arguments: object) -> str:
    command = [sys.executable, "-c", SAVE_NUMBER + script, *map(str, arguments)]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


@pytest.mark.skipif(sys.platform == "win32", reason="needs fork and SIGKILL")
def test_save_when_killed_at_any_file_operation_then_the_old_or_the_new_artifact_loads(tmp_path):
    # An audit hook in a forked child kills it at its k-th file operation, for every k until it finishes.
    found = run(
        """
def survives(kill_at):
    child = os.fork()
    if child:
        return os.waitpid(child, 0)[1] == 0
    n_events = 0
    def hook(event, _):
        nonlocal n_events
        if event not in FILE_EVENTS:
            return
        n_events += 1
        if n_events == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(hook)
    save(2)
    os._exit(0)

seen, kill_at = [], 1
save(1)
while not survives(kill_at):
    seen.append(load())
    save(1)
    kill_at += 1
assert load() == 2
print(*seen)
""",
        tmp_path / "router",
    ).split()
    assert found == sorted(found), "once the new artifact is there it stays"
    assert set(found) == {"1", "2"}
    assert len(found) > 20


@pytest.mark.skipif(sys.platform == "win32", reason="needs fork and SIGKILL")
def test_save_when_the_first_one_is_killed_then_there_is_none_or_all_and_saving_again_works(tmp_path):
    found = run(
        """
import shutil

def survives(kill_at):
    child = os.fork()
    if child:
        return os.waitpid(child, 0)[1] == 0
    n_events = 0
    def hook(event, _):
        nonlocal n_events
        if event not in FILE_EVENTS:
            return
        n_events += 1
        if n_events == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(hook)
    save(2)
    os._exit(0)

seen, kill_at = [], 1
while not survives(kill_at):
    try:
        seen.append(load())
    except ArtifactNotFoundError:
        seen.append(0)
    save(1)
    assert load() == 1
    shutil.rmtree(folder)
    kill_at += 1
print(*seen)
""",
        tmp_path / "router",
    ).split()
    assert set(found) == {"0", "2"}


@pytest.mark.skipif(sys.platform == "win32", reason="needs a file size limit")
def test_save_when_the_disk_is_full_then_raises_and_leaves_all_as_it_was(tmp_path):
    # A limit on file size fails a write as a full disk does; each limit stops the save at another file.
    failures = run(
        """
import resource

def contents():
    return sorted((str(path), path.read_bytes() if path.is_file() else b"") for path in folder.rglob("*"))

save(1)
before = contents()
n_failures = 0
for size, limit in [(2000, 0), (2000, 1), (2000, 1999), (10, 10), (10, 300)]:
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        save(2, size=size)
    except ArtifactWriteError as error:
        n_failures += 1
        assert "File too large" in str(error) and "unchanged" in str(error)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    assert contents() == before and load() == 1
save(2)
assert load() == 2
print(n_failures)
""",
        tmp_path / "router",
    )
    assert failures.split() == ["5"]


@pytest.mark.slow
def test_save_when_two_processes_save_and_one_reads_then_every_load_is_whole(tmp_path):
    folder = tmp_path / "router"
    run("save(1)", folder)
    script = "for number in range(40): save(1 + number % 2)"
    command = [sys.executable, "-c", SAVE_NUMBER + script, str(folder)]
    writers = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    n_loads = 0
    while any(writer.poll() is None for writer in writers):
        loaded = load_artifact(folder, kind="router")
        content = str(loaded.manifest.details["number"]).encode() * 2000
        assert loaded.contents == {"a.bin": content, "b.bin": content}
        n_loads += 1
    assert [writer.communicate()[1] for writer in writers] == ["", ""]
    assert [writer.returncode for writer in writers] == [0, 0]
    assert n_loads > 20
