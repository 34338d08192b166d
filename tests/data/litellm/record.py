"""Record what LiteLLM hands its loggers, in an environment of its own: it does not install beside chromadb.

pip install 'litellm[proxy]'
LITELLM_LOCAL_MODEL_COST_MAP=True python record.py > payloads.jsonl
"""

import asyncio
import contextlib
import json
import sys
import time

import litellm
from litellm.integrations.custom_logger import CustomLogger

ASKED = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Capital of Norway?"}]
N_CALLS = 7
emitted = []


class Keep(CustomLogger):
    """Keeps the standard logging payloads."""

    def log_success_event(self, kwargs, response_obj, start_time, end_time):
        emitted.append(kwargs["standard_logging_object"])

    log_failure_event = log_success_event

    async def async_log_success_event(self, kwargs, response_obj, start_time, end_time):
        emitted.append(kwargs["standard_logging_object"])


litellm.callbacks = [Keep()]
litellm.cache = litellm.Cache(type="local")
litellm.completion(model="openai/gpt-4o-mini", messages=ASKED, mock_response="Oslo.", caching=True)
time.sleep(0.5)  # the cache is filled in a thread of LiteLLM's
litellm.completion(model="openai/gpt-4o-mini", messages=ASKED, mock_response="Oslo.", caching=True)
litellm.cache = None
list(litellm.completion(model="openai/gpt-4o-mini", messages=ASKED, mock_response="Oslo.", stream=True))
with contextlib.suppress(litellm.exceptions.RateLimitError):
    litellm.completion(model="openai/gpt-4o-mini", messages=ASKED, mock_response="litellm.RateLimitError")
calls = [
    {"id": "call_1", "type": "function", "function": {"name": "look_up", "arguments": '{"city": "Oslo"}'}}
]
litellm.completion(model="openai/gpt-4o-mini", messages=ASKED, mock_tool_calls=calls)

tiers = dict.fromkeys(("SIMPLE", "MEDIUM", "COMPLEX", "REASONING"), "small")
routed = {"model": "auto_router/complexity_router", "complexity_router_config": {"tiers": tiers}}
router = litellm.Router(
    model_list=[
        {"model_name": "small", "litellm_params": {"model": "openai/gpt-4o-mini", "api_key": "sk-none"}},
        {"model_name": "auto", "litellm_params": routed},
    ]
)
router.completion(model="small", messages=ASKED, mock_response="Oslo.")


async def ask_the_complexity_router():
    await router.acompletion(model="auto", messages=ASKED, mock_response="Oslo.")
    while len(emitted) < N_CALLS:  # callbacks run beside the call
        await asyncio.sleep(0.01)


asyncio.run(asyncio.wait_for(ask_the_complexity_router(), 30))

for payload in emitted:
    payload["model_map_information"] = None  # a page of LiteLLM's price table
    payload["error_information"]["traceback"] = ""  # paths of the recording machine
    sys.stdout.write(json.dumps(payload, default=str) + "\n")
