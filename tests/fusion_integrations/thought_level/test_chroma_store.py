"""What is Chroma's own: where the index lies, how it is replaced, what a crash leaves. No fakes."""

from __future__ import annotations

import contextlib
import itertools
import json
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from fusion_integrations.embedders import HashEmbedder
from fusion_integrations.errors import (
    ArtifactFormatError,
    ArtifactNotFoundError,
    EmbedderMismatchError,
    InvalidPolicyError,
    MissingDependencyError,
)
from fusion_integrations.thought_level.chroma_store import ChromaThoughtTemplateStore

chromadb = pytest.importorskip("chromadb")

EMBEDDER = HashEmbedder()
_numbers = itertools.count()


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def chroma_server(folder, *, port):
    """Run the real server and wait until it answers."""
    command = shutil.which("chroma", path=Path(sys.executable).parent)
    assert command is not None
    log = (folder / "server.log").open("wb")
    process = subprocess.Popen(
        [command, "run", "--path", str(folder / "data"), "--host", "127.0.0.1", "--port", str(port)],
        stdout=log,
        stderr=subprocess.STDOUT,
    )
    try:
        deadline = time.monotonic() + 180
        while time.monotonic() < deadline and process.poll() is None:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                break
            time.sleep(0.1)
        else:
            pytest.fail(f"The server did not start: {(folder / 'server.log').read_text()}")
        yield
    finally:
        process.kill()
        process.wait()
        log.close()


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    port = free_port()
    with chroma_server(tmp_path_factory.mktemp("server"), port=port):
        yield {"host": "127.0.0.1", "port": port}


@pytest.fixture(params=["path", pytest.param("server", marks=pytest.mark.slow)])
def place(request, tmp_path):
    """Where an index is: the arguments of `open` for a folder or for a server, and an unused name."""
    where = {"path": tmp_path / "db"} if request.param == "path" else request.getfixturevalue("server")
    return where | {"name": f"index-{next(_numbers)}"}


@pytest.fixture
def former(make_library, demo_queries):
    return make_library(demo_queries[:40])


@pytest.fixture
def newer(make_library, demo_queries):
    return make_library(demo_queries[700:760])


def build(library, **place):
    return ChromaThoughtTemplateStore.from_library(library, embedder=EMBEDDER, **place)


def open_index(**place):
    return ChromaThoughtTemplateStore.open(embedder=EMBEDDER, **place)


def client_of(place):
    settings = chromadb.config.Settings(anonymized_telemetry=False)
    if "path" in place:
        return chromadb.PersistentClient(str(place["path"].resolve()), settings=settings)
    return chromadb.HttpClient(host=place["host"], port=place["port"], settings=settings)


def collection_names(place):
    names = (collection.name for collection in client_of(place).list_collections())
    return sorted(name for name in names if name.startswith(place["name"]))


def assert_whole(store, library):
    """Every template of the library is there, and found as it was."""
    assert store.library_fingerprint == library.fingerprint
    assert len(store) == len(library)
    found = store.search([template.query for template in library.templates], k=1)
    assert [each.template for (each,) in found] == list(library.templates)


def test_open_when_a_library_was_built_finds_all_of_it_without_the_library(place, former):
    build(former, **place)
    assert_whole(open_index(**place), former)


def test_open_when_there_is_nothing_says_how_to_build_it(place):
    with pytest.raises(ArtifactNotFoundError, match=r"from_library\(library"):
        open_index(**place)


def test_open_when_the_path_is_missing_does_not_make_it(tmp_path):
    with pytest.raises(ArtifactNotFoundError, match="There is no Chroma database at"):
        open_index(path=tmp_path / "typo")
    assert not (tmp_path / "typo").exists()


def test_open_when_the_first_build_never_ended_says_so(place, former):
    build(former, **place)
    values = {"kind": "fusion-thought-switch", "format_version": 1, "current": "", "current_id": ""}
    client_of(place).get_collection(place["name"], embedding_function=None).modify(metadata=values)
    with pytest.raises(ArtifactNotFoundError, match="never completed"):
        open_index(**place)


def test_open_when_the_collection_in_use_was_deleted_says_so(place, former):
    build(former, **place)
    client_of(place).delete_collection(f"{place['name']}-{former.fingerprint}")
    with pytest.raises(ArtifactNotFoundError, match=r"cannot be opened: .*does not exist"):
        open_index(**place)
    client_of(place).create_collection(f"{place['name']}-{former.fingerprint}", embedding_function=None)
    with pytest.raises(ArtifactNotFoundError, match="not the one that was completed"):
        open_index(**place)


@pytest.mark.parametrize("part", ["switch", "templates"])
def test_search_when_the_index_was_deleted_says_so(place, former, part):
    store = build(former, **place)
    name = place["name"] if part == "switch" else f"{place['name']}-{former.fingerprint}"
    client_of(place).delete_collection(name)
    with pytest.raises(ArtifactNotFoundError, match="or deleted"):
        store.search(["x"])
    assert_whole(build(former, **place), former)


def test_from_library_when_another_was_built_replaces_it(place, former, newer):
    build(former, **place)
    assert_whole(build(newer, **place), newer)
    assert_whole(open_index(**place), newer)
    assert collection_names(place) == [place["name"], f"{place['name']}-{newer.fingerprint}"]


def test_from_library_when_it_is_built_already_changes_nothing(place, former):
    build(former, **place)
    before = client_of(place).get_collection(f"{place['name']}-{former.fingerprint}").id
    assert_whole(build(former, **place), former)
    assert client_of(place).get_collection(f"{place['name']}-{former.fingerprint}").id == before


def test_from_library_when_entries_were_lost_puts_them_back(place, former):
    build(former, **place)
    collection = client_of(place).get_collection(f"{place['name']}-{former.fingerprint}")
    collection.delete(ids=["template-3", "template-17"])
    assert_whole(build(former, **place), former)


def test_from_library_when_something_else_wrote_into_it_says_so(place, former):
    build(former, **place)
    collection = client_of(place).get_collection(f"{place['name']}-{former.fingerprint}")
    collection.add(ids=["stranger"], embeddings=[[1.0] * 256], documents=["x"])
    with pytest.raises(ArtifactFormatError, match="holds 41 entries, but the library has 40"):
        build(former, **place)


def test_two_names_when_in_one_database_stay_apart(place, former, newer):
    longer = place | {"name": f"{place['name']}-b"}
    first, second = build(former, **place), build(newer, **longer)
    build(newer, **place)
    build(former, **place)
    with pytest.raises(ArtifactNotFoundError, match="Open it again"):
        first.search(["x"])
    assert_whole(open_index(**place), former)
    assert_whole(second, newer)


def test_search_when_another_library_was_built_says_to_open_again(place, former, newer):
    store = build(former, **place)
    store.search(["x"])
    build(newer, **place)
    with pytest.raises(ArtifactNotFoundError, match=r"rebuilt from another library.*open\(\.\.\.\)"):
        store.search(["x"])
    assert store.library_fingerprint == former.fingerprint
    build(former, **place)
    with pytest.raises(ArtifactNotFoundError, match="Open it again"):  # a like-named collection is another
        store.search(["x"])


@pytest.mark.parametrize("kind", ["switch", "templates"])
@pytest.mark.parametrize("metadata", [None, {"topic": "cats"}, {"kind": "fusion-thought-switch"}])
def test_from_library_when_a_collection_is_not_ours_leaves_it_alone(tmp_path, former, kind, metadata):
    name = "mine" if kind == "switch" else f"mine-{former.fingerprint}"
    place = {"path": tmp_path, "name": "mine"}
    theirs = client_of(place).create_collection(name, metadata=metadata, embedding_function=None)
    theirs.add(ids=["a"], embeddings=[[1.0, 0.0]], documents=["x"])
    with pytest.raises(ArtifactFormatError, match=f"collection '{name}' is no index.*another name"):
        build(former, **place)
    after = client_of(place).get_collection(name, embedding_function=None)
    assert (after.count(), after.metadata) == (1, metadata)


def test_open_when_the_collection_is_not_ours_says_so(tmp_path):
    place = {"path": tmp_path, "name": "mine"}
    client_of(place).create_collection("mine", embedding_function=None)
    with pytest.raises(ArtifactFormatError, match="'mine' is no index of thought templates"):
        open_index(**place)


def test_open_when_the_embedder_is_another_names_both(place, former):
    build(former, **place)
    with pytest.raises(EmbedderMismatchError, match=r"256 dims.*64 dims"):
        ChromaThoughtTemplateStore.open(embedder=HashEmbedder(dimensions=64), **place)


@pytest.mark.parametrize(
    "change",
    [
        {"metadatas": [{"sources": "[{"}]},
        {"metadatas": [{"sources": '[{"record_id": 7}]'}]},
        {"metadatas": [{"position": "first"}]},
        {"metadatas": [{"text": ""}]},
        {"metadatas": [{"code": "import os"}]},
        {"documents": [" "], "embeddings": EMBEDDER.embed(["x"])},
    ],
)
def test_search_when_an_entry_was_changed_names_it(tmp_path, former, change):
    store = build(former, path=tmp_path)
    client = client_of({"path": tmp_path})
    client.get_collection(f"thought-templates-{former.fingerprint}").update(ids=["template-5"], **change)
    with pytest.raises(ArtifactFormatError, match="wrote the entry 'template-5'"):
        store.search(["x", former.templates[5].query], min_similarity=-1)


@pytest.mark.parametrize("name", ["", "ab", "-abc", "a b c", "abc.", "ä" * 5, "a" * 496])
def test_index_when_the_name_is_invalid_says_what_is_allowed(tmp_path, former, name):
    for call in (
        lambda: build(former, path=tmp_path, name=name),
        lambda: open_index(path=tmp_path, name=name),
    ):
        with pytest.raises(InvalidPolicyError, match="3 to 495 letters"):
            call()
    assert list(tmp_path.iterdir()) == []


def test_index_when_the_name_is_as_long_as_allowed_is_built(tmp_path, former):
    assert_whole(build(former, path=tmp_path, name="a" * 495), former)


@pytest.mark.parametrize("where", [{}, {"path": "x", "host": "127.0.0.1"}, {"client": object(), "path": "x"}])
def test_index_when_the_place_is_not_exactly_one_says_so(former, where):
    with pytest.raises(InvalidPolicyError, match=r"exactly one of client, path and host, got (none|\w+ and)"):
        build(former, **where)


def test_index_when_no_server_answers_says_how_to_start_one(former):
    port = free_port()
    with pytest.raises(
        ArtifactNotFoundError, match=f"No Chroma server answers at 127.0.0.1:{port}.*chroma run"
    ):
        build(former, host="127.0.0.1", port=port)


def test_index_when_the_folder_is_relative_stays_there_after_chdir(tmp_path, former, newer, monkeypatch):
    for folder, library in (("one", former), ("two", newer)):
        (tmp_path / folder).mkdir()
        monkeypatch.chdir(tmp_path / folder)
        build(library, path="db")
    assert_whole(open_index(path=tmp_path / "one" / "db"), former)
    assert_whole(open_index(path=tmp_path / "two" / "db"), newer)


def test_index_when_opened_by_path_sends_no_telemetry(tmp_path, former):
    store = build(former, path=tmp_path)
    assert store._client.get_settings().anonymized_telemetry is False


def test_index_when_it_exceeds_a_batch_is_whole(tmp_path, make_library, demo_queries):
    library = make_library(demo_queries[:1100])  # three batches of at most 500
    store = build(library, path=tmp_path)
    found = store.search([template.query for template in library.templates], k=1)
    assert [each.template.id for (each,) in found] == [template.id for template in library.templates]


def test_import_when_chroma_is_missing_names_the_extra(former, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "chromadb", None)
    with pytest.raises(MissingDependencyError, match=r"fusion-integrations\[chroma\]"):
        build(former, path=tmp_path)


@pytest.mark.slow
def test_index_when_the_server_restarts_is_still_there(tmp_path, former):
    place = {"host": "127.0.0.1", "port": free_port()}
    with chroma_server(tmp_path, port=place["port"]):
        build(former, **place)
    with chroma_server(tmp_path, port=place["port"]):  # the first was killed
        assert_whole(open_index(**place), former)


@pytest.mark.slow
def test_reader_when_libraries_change_under_it_sees_one_of_them_whole_or_is_told(place, former, newer):
    build(former, **place)
    query = former.templates[0].query
    answers = {
        library.fingerprint: {template.query for template in library.templates} for library in (former, newer)
    }
    stop, told, failures = threading.Event(), [], []

    def read():
        store = open_index(**place)
        while not stop.is_set():
            try:
                (found,) = store.search([query], k=5, min_similarity=-1)
            except ArtifactNotFoundError as error:
                told.append(error)
                store = open_index(**place)
                continue
            if (
                len(found) != 5
                or not {each.template.query for each in found} <= answers[store.library_fingerprint]
            ):
                failures.append(found)

    def guarded():
        try:
            read()
        except BaseException as error:
            failures.append(error)

    reader = threading.Thread(target=guarded)
    reader.start()
    for library in itertools.islice(itertools.cycle([newer, former]), 400):
        build(library, **place)
        if len(told) >= 5 or failures:
            break
    stop.set()
    reader.join()
    assert failures == []
    assert len(told) >= 5


# For every line it reads, {"folder": ..., "step": ...}, forks a child that builds a library there, and kills
# it while it carries out its call number `step` to Chroma: that one it may begin, and none after.
_BUILDER = """
import json, os, signal, sys
import chromadb
from fusion_integrations.embedders import HashEmbedder
from fusion_integrations.thought_level.chroma_store import ChromaThoughtTemplateStore
from fusion_integrations.thought_level.template_library import ThoughtTemplateLibrary

library = ThoughtTemplateLibrary.from_pretrained(sys.argv[1])

class Asking:
    def __init__(self, inner, ask):
        self._inner, self._ask = inner, ask

    def get_max_batch_size(self):
        return 10

    def __getattr__(self, name):
        value = getattr(self._inner, name)
        if not callable(value):
            return value

        def call(*args, **kwargs):
            self._ask()
            result = value(*args, **kwargs)
            return Asking(result, self._ask) if hasattr(result, "upsert") else result

        return call

def build(folder, ask):
    settings = chromadb.config.Settings(anonymized_telemetry=False)
    client = Asking(chromadb.PersistentClient(folder, settings=settings), ask)
    ChromaThoughtTemplateStore.from_library(library, embedder=HashEmbedder(), client=client)
    ask()

for line in sys.stdin:
    order = json.loads(line)
    questions, question = os.pipe()
    answers, answer = os.pipe()
    child = os.fork()  # before any thread of Chroma's: those start with a client
    if child == 0:
        build(order["folder"], lambda: (os.write(question, b"?"), os.read(answers, 1)))
    for _ in range(order["step"]):
        os.read(questions, 1)
        os.write(answer, b"!")
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    for end in (questions, question, answers, answer):
        os.close(end)
    print(os.waitstatus_to_exitcode(status), flush=True)
"""


@pytest.mark.slow
def test_index_when_the_builder_is_killed_is_whole_and_can_be_completed(tmp_path, former, newer):
    newer.save_pretrained(tmp_path / "newer")
    found = []
    with subprocess.Popen(
        [sys.executable, "-c", _BUILDER, str(tmp_path / "newer")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as builder:
        # Calls 1 and 2 make collections, 3 counts, 4 to 9 write 60 templates, 10 counts, 11 marks the
        # collection complete, 12 turns the switch, 13 lists and 14 deletes what was before.
        for step in range(1, 15):
            folder = tmp_path / f"killed-at-{step}"
            build(former, path=folder)
            print(json.dumps({"folder": str(folder), "step": step}), file=builder.stdin, flush=True)
            assert int(builder.stdout.readline()) == -signal.SIGKILL
            store = open_index(path=folder)
            found.append(store.library_fingerprint)
            assert_whole(store, newer if store.library_fingerprint == newer.fingerprint else former)
            assert_whole(build(newer, path=folder), newer)
            assert_whole(open_index(path=folder), newer)
            assert len(collection_names({"path": folder, "name": "thought-templates"})) == 2
        builder.stdin.close()
    assert found[:11] == [former.fingerprint] * 11
    assert found[12:] == [newer.fingerprint] * 2
