import threading

import pytest
from llama_index.core.base.llms.types import ChatMessage, ChatResponse
from llama_index.core.llms.mock import MockLLM

from fusion_integrations.collection.call_limits import CallLimits
from fusion_integrations.collection.collector import LogCollector
from fusion_integrations.errors import CandidateCallError
from fusion_integrations.logs.store import LogStore
from fusion_integrations.protocols import ChatClient, StreamingChatClient
from fusion_integrations.testing import ScriptedChatClient
from fusion_integrations.types import Candidate, GenerationOptions, Message, Query
from llamaindex_fusion import ChatClientLLM, LlamaIndexChatClient

HELLO = [Message(role="system", content="Be kind."), Message(role="user", content="Hello you")]


def test_client_fits_both_protocols() -> None:
    client = LlamaIndexChatClient(MockLLM(), name="mock")

    assert isinstance(client, ChatClient)
    assert isinstance(client, StreamingChatClient)
    assert client.model == "mock"


async def test_answers_through_llama_index_equal_the_clients_own() -> None:
    scripted = ScriptedChatClient("tiny")
    client = LlamaIndexChatClient(ChatClientLLM(scripted), name="tiny")
    own = scripted.complete(HELLO)

    answers = [client.complete(HELLO), await client.acomplete(HELLO), *client.complete_batch([HELLO])]

    for answer in answers:
        assert answer.text == own.text == "tiny heard: Hello you"
        assert (answer.input_tokens, answer.output_tokens) == (4, 4)
        assert (answer.finish_reason, answer.model) == ("stop", "tiny")
        assert answer.latency_s is not None
    assert scripted.calls == [tuple(HELLO)] * 4


def test_stream_gives_the_pieces_of_the_answer() -> None:
    client = LlamaIndexChatClient(ChatClientLLM(ScriptedChatClient("tiny")), name="tiny")

    assert list(client.stream(HELLO)) == ["tiny", " heard:", " Hello", " you"]


def test_options_become_the_keyword_arguments_of_the_llm() -> None:
    seen: list[dict] = []

    class Recorder(MockLLM):
        def chat(self, messages, **kwargs):
            seen.append(kwargs)
            return ChatResponse(message=ChatMessage(role="assistant", content="ok"))

    options = GenerationOptions(max_tokens=5, temperature=0.5, stop=("\n",), seed=3)
    ollama = LlamaIndexChatClient(
        Recorder(), name="m", to_kwargs=lambda given: {"options": {"num_predict": given.max_tokens}}
    )

    LlamaIndexChatClient(Recorder(), name="m").complete(HELLO, options=options)
    LlamaIndexChatClient(Recorder(), name="m").complete(HELLO, options=GenerationOptions())
    LlamaIndexChatClient(Recorder(), name="m").complete(HELLO)
    ollama.complete(HELLO, options=options)

    assert seen == [
        {"max_tokens": 5, "temperature": 0.5, "stop": ["\n"], "seed": 3},
        {"max_tokens": 256, "temperature": 0.0},
        {},
        {"options": {"num_predict": 5}},
    ]


def test_batch_runs_in_threads_and_keeps_the_order() -> None:
    meeting = threading.Barrier(3, timeout=10)

    def answer(messages) -> str:
        meeting.wait()  # all three must be under way at once
        return messages[-1].content

    client = LlamaIndexChatClient(ChatClientLLM(ScriptedChatClient("tiny", answer=answer)), name="tiny")

    answers = client.complete_batch([[Message(role="user", content=text)] for text in "abc"])

    assert [answer.text for answer in answers] == ["a", "b", "c"]


async def test_failure_when_llm_raises_then_candidate_call_error_from_it() -> None:
    def fail(messages: object) -> str:
        raise ConnectionError("refused")

    client = LlamaIndexChatClient(ChatClientLLM(ScriptedChatClient("tiny", answer=fail)), name="tiny")
    message = "Model 'tiny' failed: ConnectionError: refused"

    with pytest.raises(CandidateCallError, match=message) as caught:
        client.complete(HELLO)
    assert isinstance(caught.value.__cause__, ConnectionError)
    with pytest.raises(CandidateCallError, match=message):
        await client.acomplete(HELLO)
    with pytest.raises(CandidateCallError, match=message):
        client.complete_batch([HELLO, HELLO])
    with pytest.raises(CandidateCallError, match=message):
        list(client.stream(HELLO))


def test_stream_when_closed_then_the_llms_stream_is_closed() -> None:
    closed = threading.Event()

    class Endless(ScriptedChatClient):
        def stream(self, messages, *, options=None):
            try:
                while True:
                    yield "more"
            finally:
                closed.set()

    stream = LlamaIndexChatClient(ChatClientLLM(Endless("tiny")), name="tiny").stream(HELLO)
    next(stream)

    stream.close()

    assert closed.is_set()


def test_collect_when_the_client_is_a_llamaindex_llm_calls_it_within_its_limits(store: LogStore) -> None:
    report = LogCollector(
        {"mock": LlamaIndexChatClient(MockLLM(), name="mock")},
        candidates=[Candidate(id="mock:direct", model="mock")],
        store=store,
        collection="test",
        limits={"mock:direct": CallLimits(concurrency=3)},
    ).collect([Query.from_text(f"question {i}") for i in range(9)])
    assert (report.n_done, report.n_failed) == (9, 0)
    assert {record.model for record in store.records()} == {"mock"}
