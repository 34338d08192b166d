"""Record what LiteLLM hands its loggers and its table of spend logs, in an environment of its own.

LiteLLM does not install beside chromadb.

    pip install 'litellm[proxy]'
    LITELLM_LOCAL_MODEL_COST_MAP=True python record.py
"""

import asyncio
import contextlib
import json
import time
from pathlib import Path

import litellm
from litellm.integrations.custom_logger import CustomLogger
from litellm.proxy import proxy_server
from litellm.proxy.spend_tracking.spend_tracking_utils import get_logging_payload

ASKED = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Capital of Norway?"}]
N_CALLS = 7
emitted, spent = [], []


class Keep(CustomLogger):
    """Keeps the standard logging payloads."""

    def log_success_event(self, kwargs, response_obj, start_time, end_time):
        emitted.append(kwargs["standard_logging_object"])

    log_failure_event = log_success_event

    async def async_log_success_event(self, kwargs, response_obj, start_time, end_time):
        emitted.append(kwargs["standard_logging_object"])
        spent.append(get_logging_payload(kwargs, response_obj, start_time, end_time))


litellm.callbacks = [Keep()]
proxy_server.general_settings["store_prompts_in_spend_logs"] = True
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
    # The proxy hands the request on like this; its spend logs keep the prompt there alone.
    request = {"body": {"model": "auto", "messages": ASKED}}
    await router.acompletion(
        model="auto", messages=ASKED, mock_response="Oslo.", proxy_server_request=request
    )
    while len(emitted) < N_CALLS:  # callbacks run beside the call
        await asyncio.sleep(0.01)


asyncio.run(asyncio.wait_for(ask_the_complexity_router(), 30))

for payload in emitted:
    payload["model_map_information"] = None  # a page of LiteLLM's price table
    payload["error_information"]["traceback"] = ""  # paths of the recording machine
for row in spent:
    row["metadata"] = json.dumps({**json.loads(row["metadata"]), "model_map_information": None})
for name, rows in (("payloads", emitted), ("spend_logs", spent)):
    lines = [json.dumps(row, default=str) for row in rows]
    Path(__file__).with_name(f"{name}.jsonl").write_text("\n".join(lines) + "\n")
