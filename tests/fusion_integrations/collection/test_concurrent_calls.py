import subprocess
import sys

# The call ends only once the interrupt has arrived: it hangs where Ctrl-C waits for the calls to end.
INTERRUPTED = """
import os, signal, threading, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have this process ignore it
import polars  # makes system calls go on after a signal
from fusion_integrations.collection.call_limits import CallLimits
from fusion_integrations.collection.concurrent_calls import call_concurrently
from fusion_integrations.collection.planned_calls import CandidatePlan
from fusion_integrations.types import Candidate

stop, asked = threading.Event(), []

class Asker:
    def ask_one(self, call, *, limits, pace):
        asked.append(call)
        time.sleep(0.5)  # the main thread waits by then
        os.kill(os.getpid(), signal.SIGINT)
        stop.wait()

candidate = Candidate(id="a", model="a", prompt_mode="direct")
plan = CandidatePlan(candidate=candidate, missing=["first", "second"], n_known=0)
try:
    call_concurrently(
        [plan], asker=Asker(), limits={"a": CallLimits(concurrency=1)}, stop=stop, on_outcome=id
    )
except KeyboardInterrupt:
    print("interrupted after", asked)
"""


def test_calls_when_interrupted_under_way_then_no_further_one_is_made():
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED], capture_output=True, text=True, timeout=60, check=True
    )

    assert done.stdout.splitlines()[-1] == "interrupted after ['first']"
