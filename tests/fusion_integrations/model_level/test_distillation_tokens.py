from __future__ import annotations

import pytest

from fusion_integrations.clients.model_folder import load_model
from fusion_integrations.clients.transformers_client import TransformersClient
from fusion_integrations.demo.models import smollm2_client
from fusion_integrations.errors import InvalidPolicyError
from fusion_integrations.model_level.distillation_dataset import SftPair
from fusion_integrations.model_level.distillation_tokens import tokenize_pairs
from fusion_integrations.model_level.student_network import end_tokens
from fusion_integrations.types import GenerationOptions, Message

WITHOUT_END = (
    "{% for message in messages %}{{ message['role'] + ': ' + message['content'] + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
)
# As templates of reasoning models do: a prompt ends with something a past answer does not begin with.
THINKING = WITHOUT_END.replace("'assistant: '", "'assistant: <think>'")
WITHOUT_SYSTEM = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
CONVERSATION = (
    Message(role="system", content="Be kind."),
    Message(role="user", content="Hi"),
    Message(role="assistant", content="Hello!"),
    Message(role="user", content="Say a."),
)


ASKED = (Message(role="user", content="Say a."),)


def pair_of(answer, messages=ASKED):
    return SftPair(query_id="q", messages=messages, answer=answer, task=None, teacher="big")


@pytest.fixture(scope="module")
def tokenize(base):
    network, tokenizer = load_model(base)

    def run(*pairs, max_tokens=200, template=None):
        own = tokenizer.chat_template
        tokenizer.chat_template = template or own
        try:
            return tokenize_pairs(
                pairs, tokenizer=tokenizer, end_tokens=end_tokens(network, tokenizer), max_tokens=max_tokens
            )
        finally:
            tokenizer.chat_template = own

    run.tokenizer = tokenizer
    return run


@pytest.mark.parametrize("messages", [CONVERSATION, CONVERSATION[1:], CONVERSATION[3:]])
def test_prompt_is_token_for_token_what_the_client_sends(base, tokenize, messages):
    client = TransformersClient.from_folder(base, model_name="tiny")
    sent = client._encode(messages, GenerationOptions(max_tokens=1))
    (pair,), _ = tokenize(pair_of("It is a.", messages))
    assert list(pair.prompt) == sent


def test_answer_is_what_was_answered_and_the_token_that_ends_it(tokenize):
    (pair,), _ = tokenize(pair_of("It is a."))
    assert tokenize.tokenizer.decode(pair.answer) == "It is a.<|im_end|>"
    example = pair.to_example()
    assert example["input_ids"] == [*pair.prompt, *pair.answer]
    assert example["labels"] == [-100] * len(pair.prompt) + list(pair.answer)


def test_answer_when_the_template_writes_no_end_gets_one(tokenize):
    (pair,), _ = tokenize(pair_of("It is a."), template=WITHOUT_END)
    assert tokenize.tokenizer.decode(pair.prompt) == "user: Say a.\nassistant: "
    assert tokenize.tokenizer.decode(pair.answer) == "It is a.\n<|im_end|>"


def test_answer_when_tokens_would_merge_over_the_border_leaves_the_prompt_alone():
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    vocabulary = {"<unk>": 0, "<e>": 1, "u": 2, ":": 3, "a": 4, "\n": 5, ":a": 6}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.BPE(vocab=vocabulary, merges=[(":", "a")], unk_token="<unk>")),  # noqa: S106
        unk_token="<unk>",  # noqa: S106
        eos_token="<e>",  # noqa: S106
    )
    tokenizer.chat_template = (
        "{% for m in messages %}{{ m['role'][0] + ':' + m['content'] + '\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ 'a:' }}{% endif %}"
    )
    pair = pair_of("a", (Message(role="user", content="u"),))
    (found,), _ = tokenize_pairs([pair], tokenizer=tokenizer, end_tokens=[1], max_tokens=20)
    assert found.prompt == (2, 3, 2, 5, 4, 3)  # "u:u\na:", as a client sends it; joint text would end in ":a"
    assert found.answer == (4, 5, 1)


def test_pairs_when_unfit_are_dropped_whole_and_counted_by_reason(tokenize):
    fit = pair_of("It is a.")
    (whole,), _ = tokenize(fit)
    pairs = [pair_of("It is aa."), fit, pair_of("a<|im_end|>\n<|im_start|>user\nb"), pair_of("é is unknown")]
    kept, dropped = tokenize(*pairs, max_tokens=len(whole))
    assert [item.pair for item in kept] == [fit]
    assert dropped == {"too_long": 2, "control_tokens": 1, "refused_by_template": 0}


def test_pairs_when_the_template_refuses_a_conversation_are_counted(tokenize):
    kept, dropped = tokenize(pair_of("a", CONVERSATION), pair_of("a"), template=WITHOUT_SYSTEM + WITHOUT_END)
    assert len(kept) == 1
    assert dropped["refused_by_template"] == 1


def test_pairs_when_the_template_does_not_continue_its_prompt_are_refused(tokenize):
    with pytest.raises(InvalidPolicyError, match=r"does not continue its own prompt.*<think>"):
        tokenize(pair_of("a"), template=THINKING)


def test_pairs_when_there_is_no_template_are_refused(base):
    _, tokenizer = load_model(base)
    tokenizer.chat_template = None
    with pytest.raises(InvalidPolicyError, match="no chat template"):
        tokenize_pairs([pair_of("a")], tokenizer=tokenizer, end_tokens=[2], max_tokens=20)


@pytest.mark.real_model
def test_pairs_for_smollm2_are_what_its_client_sends_and_what_it_should_answer():
    client = smollm2_client()
    tokenizer = client._tokenizer
    (pair,), _ = tokenize_pairs(
        [pair_of("It is a.")],
        tokenizer=tokenizer,
        end_tokens=end_tokens(client._network, tokenizer),
        max_tokens=100,
    )
    assert list(pair.prompt) == client._encode(ASKED, GenerationOptions())
    assert tokenizer.decode(pair.prompt).endswith(
        "<|im_start|>user\nSay a.<|im_end|>\n<|im_start|>assistant\n"
    )
    assert tokenizer.decode(pair.answer) == "It is a.<|im_end|>"
