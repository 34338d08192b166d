"""The program as users run it, logs and a router to run it on, and a client kind that needs no model."""

from __future__ import annotations

import os
import string
import subprocess
import sysconfig
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
from typer.testing import CliRunner, Result

import fusion_integrations
from fusion_integrations.cli.main import app
from fusion_integrations.embedders import HashEmbedder
from fusion_integrations.logs.frame import write_parquet
from fusion_integrations.logs.splits import duplicate_key, holdout_mask
from fusion_integrations.query_level.router_model import RouterModel
from fusion_integrations.testing import tiny_logs
from fusion_integrations.thought_level.template_library import (
    TemplateSource,
    ThoughtTemplate,
    ThoughtTemplateLibrary,
)

# An installed package that brings a client kind, as an integration would: a module and its metadata.
PLUGIN = """
import itertools

from fusion_integrations.testing import ScriptedChatClient


def make(model_name, settings, folder):
    says = itertools.cycle(settings.get("says", []))

    def answer(messages):
        text = messages[-1].content
        if "says" in settings:
            return next(says)
        if settings.get("fails_on", "\\0") in text:
            raise ValueError(f"refused by {model_name} [bold]")
        if settings.get("is_noisy"):
            print("a library that prints to stdout")
        return f"The answer is {text.split()[2]}."

    return ScriptedChatClient(model_name, answer=answer)
"""
CANDIDATES = """
version: 1
models:
  echo: {{client: scripted, settings: {settings}, price: {{output_usd_per_mtok: 1.0, is_nominal: true}}}}
candidates:
  - {{id: "echo:direct", model: echo}}
  - {{id: "echo:reasoning", model: echo, prompt_mode: reasoning}}
"""


@pytest.fixture
def fusion() -> Callable[..., Result]:
    """Run the program in this process; an error that is no `FusionError` reaches the test."""

    def run(*arguments: object) -> Result:
        return CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)

    return run


@pytest.fixture(scope="session")
def plugin_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("plugin")
    (folder / "scripted_kind.py").write_text(PLUGIN)
    info = folder / "scripted_kind-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: scripted-kind\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[fusion_integrations.clients]\nscripted = scripted_kind:make\n")
    return folder


@pytest.fixture
def plugin(plugin_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Install the client kind `scripted` in this process."""
    monkeypatch.syspath_prepend(plugin_folder)


@pytest.fixture
def start_fusion(plugin_folder: Path) -> Callable[..., subprocess.Popen[str]]:
    """Start the installed program in a process of its own, the client kind `scripted` installed."""

    def start(*arguments: object) -> subprocess.Popen[str]:
        root = Path(fusion_integrations.__file__).parents[1]
        return subprocess.Popen(
            [Path(sysconfig.get_path("scripts")) / "fusion", *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": f"{plugin_folder}{os.pathsep}{root}", "PYTHONWARNINGS": "error"},
        )

    return start


@pytest.fixture
def write_queries(tmp_path: Path) -> Callable[[int], Path]:
    def write(n_queries: int) -> Path:
        path = tmp_path / "sums.jsonl"
        path.write_text(
            "".join(
                f'{{"text": "What is {i} + 0?", "reference": "{i}", "metric": "numeric_match"}}\n'
                for i in range(n_queries)
            )
        )
        return path

    return write


@pytest.fixture
def write_candidates(tmp_path: Path) -> Callable[..., Path]:
    def write(settings: str = "{}") -> Path:
        path = tmp_path / "candidates.yaml"
        path.write_text(CANDIDATES.format(settings=settings))
        return path

    return write


@pytest.fixture(scope="session")
def logs_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("logs") / "tiny.parquet"
    write_parquet(tiny_logs(), path)
    return path


@pytest.fixture(scope="session")
def split_paths(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Training and held-out logs without a common query."""
    folder, logs = tmp_path_factory.mktemp("split"), tiny_logs()
    queries = logs.select("query_id", "query_text").unique().sort("query_id")
    mask = holdout_mask([duplicate_key(text) for text in queries["query_text"]], fraction=0.3, seed=0)
    is_held_out = pl.col("query_id").is_in(queries.filter(pl.Series(mask))["query_id"].to_list())
    for name, part in (("train", logs.filter(~is_held_out)), ("test", logs.filter(is_held_out))):
        write_parquet(part, folder / f"{name}.parquet")
    return folder / "train.parquet", folder / "test.parquet"


@pytest.fixture(scope="session")
def router_path(tmp_path_factory: pytest.TempPathFactory, trained_router: RouterModel) -> Path:
    folder = tmp_path_factory.mktemp("router") / "tiny"
    trained_router.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def library_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library of three templates; the last comes from a stranger who wants to paint the terminal."""
    written = (
        ("ab12", "What is 3 + 4?", "Add the two numbers and give the sum.", "sums"),
        ("ab34", "What is 5 * 6?", "Multiply the two numbers and give the product.", "sums"),
        ("cd56", "Name a fish.\x1b[31m", "Recall animals of this kind.\x1b[2J", None),
    )
    templates = [
        ThoughtTemplate(
            id=template_id,
            query_id=f"query-{template_id}",
            query=query,
            text=text,
            task=task,
            sources=(TemplateSource(record_id=f"r-{template_id}", candidate_id="writer", performance=0.75),),
        )
        for template_id, query, text, task in written
    ]
    embedder = HashEmbedder(dimensions=32)
    folder = tmp_path_factory.mktemp("library") / "templates"
    ThoughtTemplateLibrary(
        templates,
        vectors=embedder.embed([template.query for template in templates]),
        embedder=embedder.identity,
        arguments={"summariser": "echo", "summary_prompt_version": 1},
        log_fingerprint="0123456789abcdef",
    ).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An instruction-tuned model of random weights, one token a printable character."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    unknown, begin, end = special = ["<unk>", "<|im_start|>", "<|im_end|>"]
    characters = [*string.ascii_letters, *string.digits, *string.punctuation, "\u0120", "\u010a"]
    vocabulary = {token: i for i, token in enumerate([*special, *characters])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token=unknown))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token=unknown, bos_token=begin, eos_token=end
    )
    fast.chat_template = (
        "{% for message in messages %}"
        "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
        "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    )
    config = LlamaConfig(
        vocab_size=len(vocabulary),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=256,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=2,
    )
    folder = tmp_path_factory.mktemp("base") / "tiny-chat"
    with torch.random.fork_rng():
        torch.manual_seed(3)
        LlamaForCausalLM(config).save_pretrained(folder)
    fast.save_pretrained(folder)
    return folder
