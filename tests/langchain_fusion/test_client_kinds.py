from __future__ import annotations

import importlib
import tomllib
from pathlib import Path

import pytest

from fusion_integrations.collection.call_limits import CallLimits
from fusion_integrations.collection.candidates_file import load_candidates
from fusion_integrations.collection.client_kinds import CLIENT_KINDS_GROUP
from fusion_integrations.collection.collector import LogCollector
from fusion_integrations.errors import (
    CandidateCallError,
    CandidatesFileError,
    InvalidPolicyError,
    MissingDependencyError,
)
from fusion_integrations.logs.store import LogStore
from fusion_integrations.types import GenerationOptions, Message, Query
from langchain_fusion.client_kinds import langchain_client
from langchain_fusion.clients import LangChainChatClient

KEY = "sk-a-key-that-nobody-may-see"
ASKED = [Message(role="user", content="What is 17 * 24?")]


@pytest.fixture
def settings(openai_server, monkeypatch):
    monkeypatch.setenv("TINY_KEY", KEY)
    return {
        "model": "openai:tiny",
        "api_key_env": "TINY_KEY",
        "arguments": {"base_url": openai_server.url, "max_retries": 0},
    }


def test_kind_is_registered_under_its_name():
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    module, _, name = project["entry-points"][CLIENT_KINDS_GROUP]["langchain"].partition(":")
    assert getattr(importlib.import_module(module), name) is langchain_client


def test_client_when_made_asks_the_real_langchain_model(settings, openai_server):
    client = langchain_client("my-tiny", settings, Path())
    assert isinstance(client, LangChainChatClient)
    answer = client.complete(ASKED, options=GenerationOptions(max_tokens=9))
    assert (answer.model, answer.text) == ("my-tiny", "You asked: What is 17 * 24?")
    assert (answer.input_tokens, answer.output_tokens, answer.finish_reason) == (5, 7, "stop")
    assert openai_server.requests[0]["model"] == "tiny"
    assert openai_server.keys == [f"Bearer {KEY}"]


@pytest.mark.parametrize(
    ("status", "is_transient", "may_be_billed"), [(429, True, False), (500, True, False), (400, False, False)]
)
def test_client_when_the_server_refuses_says_whether_to_try_again(
    settings, openai_server, status, is_transient, may_be_billed
):
    kind = type(openai_server).answer.__globals__["Reply"]
    openai_server.reply = lambda _: kind(status=status, text=f"no, {KEY}", headers={"retry-after": "2"})
    with pytest.raises(CandidateCallError, match="Model 'my-tiny' failed") as caught:
        langchain_client("my-tiny", settings, Path()).complete(ASKED)
    error = caught.value
    assert (error.is_transient, error.may_be_billed, error.retry_after_s) == (
        is_transient,
        may_be_billed,
        2.0,
    )
    assert "***" in str(error)
    assert KEY not in str(error)


@pytest.mark.parametrize(
    ("changes", "error", "says"),
    [
        ({"api_key_env": "NO_SUCH_KEY"}, InvalidPolicyError, "'NO_SUCH_KEY', which is not set"),
        ({"arguments": {"api_key": KEY}}, InvalidPolicyError, "'api_key' would put a key into the file"),
        ({"model": "no-provider-knows-this"}, InvalidPolicyError, "cannot make 'no-provider-knows-this'"),
        ({"model": "os:system"}, InvalidPolicyError, "cannot make 'os:system'"),
        ({"model": "anthropic:claude"}, MissingDependencyError, "langchain-anthropic"),
        ({"arguments": {"temperature": "hot"}}, InvalidPolicyError, "Input should be a valid number"),
    ],
)
def test_client_when_the_settings_do_not_fit_says_why_without_the_key(settings, changes, error, says):
    with pytest.raises(error, match=says) as caught:
        langchain_client("my-tiny", settings | changes, Path())
    assert KEY not in str(caught.value)


def test_client_when_the_server_fails_asks_once_for_whoever_calls_it_tries_again(settings, openai_server):
    kind = type(openai_server).answer.__globals__["Reply"]
    openai_server.reply = lambda _: kind(status=500)
    client = langchain_client("my-tiny", settings | {"arguments": {"base_url": openai_server.url}}, Path())
    with pytest.raises(CandidateCallError):
        client.complete(ASKED)
    assert len(openai_server.requests) == 1


def test_collect_when_a_candidates_file_names_langchain_collects_with_limits_and_retries(
    openai_server, settings, tmp_path
):
    kind = type(openai_server).answer.__globals__["Reply"]
    left = iter([kind(status=500), kind(status=429, headers={"retry-after": "0"})])
    openai_server.reply = lambda _: next(left, None)
    path = tmp_path / "candidates.yaml"
    path.write_text(
        f"""
version: 1
models:
  my-tiny:
    client: langchain
    settings:
      model: "openai:tiny"
      api_key_env: TINY_KEY
      arguments: {{base_url: "{openai_server.url}", max_retries: 0}}
candidates:
  - {{id: tiny, model: my-tiny, limits: {{concurrency: 2, retry_wait_s: 0}}}}
"""
    )
    found = load_candidates(path, kinds={"langchain": langchain_client})
    assert found.limits == {"tiny": CallLimits(concurrency=2, retry_wait_s=0)}
    with LogStore.open(tmp_path / "logs.sqlite") as store:
        report = LogCollector(
            found.clients,
            candidates=found.candidates,
            store=store,
            collection="test",
            options=found.options,
            limits=found.limits,
        ).collect([Query.from_text(f"question {i}") for i in range(6)])
        assert (report.n_done, report.n_failed) == (6, 0)
        assert {record.model for record in store.records()} == {"my-tiny"}


def test_candidates_file_when_the_key_is_missing_names_the_place(tmp_path, monkeypatch):
    monkeypatch.delenv("TINY_KEY", raising=False)
    path = tmp_path / "candidates.yaml"
    path.write_text(
        "version: 1\nmodels:\n  tiny: {client: langchain, settings: {api_key_env: TINY_KEY}}\n"
        "candidates: [{id: tiny, model: tiny}]\n"
    )
    found = load_candidates(path, kinds={"langchain": langchain_client})
    with pytest.raises(CandidatesFileError, match=r"models\.tiny\.settings: api_key_env names"):
        found.clients["tiny"]
