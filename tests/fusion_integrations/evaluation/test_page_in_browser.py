"""The page in a real browser: it draws, filters, asks for nothing, and hostile texts stay texts."""

from __future__ import annotations

import base64
import contextlib
import itertools
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fusion_integrations.evaluation import evaluate_routers, render_evaluation_page, render_page

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        CHROMIUM is None and "CI" not in os.environ,  # there a missing browser is a failure
        reason="There is no Chromium or Chrome on the PATH to show the page in.",
    ),
]

HOSTILE = (
    "</script><script>window.hacked = 1</script>",
    '<img src="data:," onerror="window.hacked = 1">',
    '"><svg onload="window.hacked = 1">',
    "<!--<script>",
    '<a href="https://example.org">here</a>',
    "%{x} &lt;b&gt;",
)

_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--remote-debugging-pipe",
)
# The protocol's pipe has to be on the file descriptors 3 and 4; copies out of the way come first.
_LAUNCH = """
import fcntl, os, sys
copies = [fcntl.fcntl(int(each), fcntl.F_DUPFD, 10) for each in sys.argv[1:3]]
os.dup2(copies[0], 3)
os.dup2(copies[1], 4)
os.execv(sys.argv[3], sys.argv[3:])
"""
_PATIENCE_S = 120.0  # a busy machine, not a measure of the page


class Browser:
    """Shows one page at a time, driven over a pipe by the DevTools protocol: no driver package, no port.

    Attributes:
        problems: Console errors, exceptions and refusals by the content security policy.
        requests: Addresses that the page asked for, itself left out.
    """

    def __init__(self, write: int, read: int) -> None:
        self.problems: list[str] = []
        self.requests: list[str] = []
        self._write, self._read = write, read
        self._ids = itertools.count(1)
        self._buffer = b""
        self._session: str | None = None

    def open(self, path: Path, *, width: int = 1280, height: int = 900, is_dark: bool = False) -> None:
        self._session, self.problems, self.requests = None, [], []
        target = self._send("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self._send(f"{domain}.enable")
        self._send(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        self.set_dark(is_dark)
        address = path.as_uri()
        self._send("Page.navigate", url=address)
        self.wait_for("document.documentElement?.dataset.drawn === 'true'")
        self.requests = [each for each in self.requests if each != address]

    def set_dark(self, is_dark: bool) -> None:
        value = "dark" if is_dark else "light"
        self._send("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": value}])

    def run(self, script: str) -> Any:
        """Evaluate an expression in the page."""
        found = self._send("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in found:
            raise AssertionError(found["exceptionDetails"])
        return found["result"].get("value")

    def wait_for(self, condition: str) -> None:
        end = time.monotonic() + _PATIENCE_S
        while not self.run(condition):
            if time.monotonic() > end:
                raise AssertionError(f"{condition} did not come true. Problems: {self.problems}")
            time.sleep(0.05)

    def press_tab(self) -> None:
        for kind in ("rawKeyDown", "keyUp"):
            self._send("Input.dispatchKeyEvent", type=kind, key="Tab", code="Tab", windowsVirtualKeyCode=9)

    def type_text(self, text: str) -> None:
        self._send("Input.insertText", text=text)

    def screenshot(self, path: Path) -> None:
        data = self._send("Page.captureScreenshot", captureBeyondViewport=True)["data"]
        path.write_bytes(base64.b64decode(data))

    def _send(self, method: str, **parameters: Any) -> dict[str, Any]:
        number = next(self._ids)
        message = {"id": number, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next_message()
            if answer.get("id") == number:
                if "error" in answer:
                    raise AssertionError(f"{method}: {answer['error']}")
                result: dict[str, Any] = answer["result"]
                return result
            if answer.get("sessionId") == self._session:
                self._note(answer.get("method", ""), answer.get("params", {}))

    def _next_message(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            if not select.select([self._read], [], [], _PATIENCE_S)[0]:
                raise AssertionError("Chromium does not answer.")
            part = os.read(self._read, 1 << 16)
            if not part:
                raise AssertionError("Chromium ended.")
            self._buffer += part
        message, _, self._buffer = self._buffer.partition(b"\0")
        found: dict[str, Any] = json.loads(message)
        return found

    def _note(self, event: str, parameters: dict[str, Any]) -> None:
        if event == "Network.requestWillBeSent":
            self.requests.append(parameters["request"]["url"])
        elif event == "Runtime.exceptionThrown":
            self.problems.append(str(parameters["exceptionDetails"]))
        elif event == "Runtime.consoleAPICalled" and parameters["type"] in ("error", "warning", "assert"):
            self.problems.append(str(parameters["args"]))
        elif event == "Log.entryAdded" and parameters["entry"]["level"] in ("error", "warning"):
            self.problems.append(parameters["entry"]["text"])


@contextlib.contextmanager
def running_browser() -> Iterator[Browser]:
    """Start Chromium with a profile of its own, and end it."""
    assert CHROMIUM is not None
    to_browser, from_browser = os.pipe(), os.pipe()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        command = [CHROMIUM, *_FLAGS, f"--user-data-dir={profile}"]
        process = subprocess.Popen(
            [sys.executable, "-c", _LAUNCH, str(to_browser[0]), str(from_browser[1]), *command],
            pass_fds=(to_browser[0], from_browser[1]),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(to_browser[0])
        os.close(from_browser[1])
        try:
            yield Browser(to_browser[1], from_browser[0])
        finally:
            os.close(to_browser[1])  # it ends when nobody can talk to it any more
            try:
                process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            os.close(from_browser[0])


@pytest.fixture(scope="module")
def page(tmp_path_factory, make_benchmark):
    """Two logs, one of them hostile, without costs and with many tasks. Tests leave it as they found it."""
    hostile = make_benchmark(
        names=HOSTILE, tasks=[f"{HOSTILE[i % 6]} {i}" for i in range(20)], has_costs=False
    )
    path = tmp_path_factory.mktemp("page") / "page.html"
    path.write_text(render_page([make_benchmark(), hostile]))
    with running_browser() as browser:
        browser.open(path)
        yield browser


@pytest.fixture
def phone_page(tmp_path, make_benchmark):
    """One log on a small screen."""
    path = tmp_path / "page.html"
    path.write_text(render_page([make_benchmark()]))
    with running_browser() as browser:
        browser.open(path, width=360, height=740)
        yield browser


def test_page_of_an_evaluation_draws_every_plot_and_finds_single_queries(
    tmp_path, make_logs, make_router, train_rows, test_rows
):
    report = evaluate_routers(
        {"<i>mine": make_router()}, logs=make_logs(test_rows), train_logs=make_logs(train_rows)
    )
    path = tmp_path / "page.html"
    path.write_text(render_evaluation_page(report))
    with running_browser() as browser:
        browser.open(path)
        assert (browser.problems, browser.requests) == ([], [])
        n_plots = 3 * len(report.policies) + 1  # gains, costs and tasks of each; calibration
        assert browser.run("document.querySelectorAll('.plot').length") == n_plots
        assert browser.run("[...document.querySelectorAll('.plot')].every(p => p.querySelector('.trace'))")
        browser.run("document.querySelector('.explorer [name=search]').focus()")
        browser.type_text("coins")
        visible = "[...document.querySelectorAll('.explorer tbody tr:not([hidden])')]"
        assert browser.run(f"{visible}.map(row => row.querySelector('th').textContent)") == [
            "the sum of all coins"
        ]
        assert "<i>mine" in browser.run("document.querySelector('.explorer').textContent")


def set_filter(page, name, value):
    page.run(
        f"(() => {{ const box = document.querySelector('#log-0 [name={name}]'); box.value = '{value}';"
        "box.dispatchEvent(new Event('input', {bubbles: true})); })()"
    )


def test_page_when_opened_draws_every_plot_without_errors_or_requests(page):
    assert page.problems == []
    assert page.requests == []
    # Log 1: gains, costs, tasks, calibration; log 2 has no costs.
    assert page.run("document.querySelectorAll('.plot').length") == 7
    assert page.run("[...document.querySelectorAll('.plot')].every(p => p.querySelector('.trace'))")
    assert page.run("[...document.querySelectorAll('.plot')].map(p => p.data[0].type)") == [
        "scatter",
        "scatter",
        "scatterpolar",
        "scatter",
        "scatter",
        "scatter",  # twenty tasks: dots instead of a radar
        "scatter",
    ]


def test_page_of_hostile_names_and_texts_runs_none_of_them(page):
    assert page.run("window.hacked === undefined")
    assert page.run("document.querySelectorAll('img, iframe, svg a, object').length") == 0
    shown = page.run("document.querySelector('#log-1 .explorer').textContent")
    assert all(text in shown for text in HOSTILE)
    # Plotly reads a little HTML in its labels; it must show the names as they are.
    labels = page.run("document.querySelector('#log-1').querySelectorAll('.plot')[1].textContent")
    assert all(f"{HOSTILE[i % 6]} {i}" in labels for i in range(20))


def test_explorer_when_searched_by_keyboard_shows_the_matching_queries(page):
    page.run("document.querySelector('#log-0 [name=search]').focus()")
    page.type_text("PEARS two")
    shown = page.run("document.querySelector('#log-0 output').textContent")
    visible = "[...document.querySelectorAll('#log-0 .explorer tbody tr:not([hidden])')]"
    found = page.run(f"{visible}.map(row => row.querySelector('th').textContent)")
    set_filter(page, "search", "")
    assert found == ["two pears and a sum"]
    assert shown == "1 of 41 queries match"


@pytest.mark.parametrize(
    ("name", "value", "n_found"), [("task", "prose", 40), ("which", "differ", 1), ("choice", "large", 41)]
)
def test_explorer_when_filtered_counts_what_is_left(page, name, value, n_found):
    set_filter(page, name, value)
    shown = page.run("document.querySelector('#log-0 output').textContent")
    set_filter(page, name, "")
    assert shown.startswith(f"{n_found} of 41 ")


def test_explorer_of_many_queries_shows_more_when_asked(page):
    visible = "document.querySelectorAll('#log-0 .explorer tbody tr:not([hidden])').length"
    counts = [page.run(visible)]
    for _ in range(2):
        page.run("document.querySelector('#log-0 .explorer button').click()")
        counts.append(page.run(visible))
    assert counts == [20, 40, 41]
    assert page.run("document.querySelector('#log-0 .explorer button').hidden")


def test_plots_when_a_head_is_left_out_do_not_show_it(page):
    names = "document.querySelectorAll('#log-0 .plot')[3].data.map(trace => trace.name)"
    assert page.run(names) == ["perfect", "cluster", "stack"]
    page.run("document.querySelector('#log-0 .heads input[value=cluster]').click()")
    page.wait_for(f"{names}.length === 2")
    left = page.run(names)
    page.run("document.querySelector('#log-0 .heads input[value=cluster]').click()")
    page.wait_for(f"{names}.length === 3")
    assert left == ["perfect", "stack"]


def test_page_when_the_screen_turns_dark_draws_anew(page):
    body, plot = "getComputedStyle(document.body)", "document.querySelector('.plot')"
    colors = f"[{body}.backgroundColor, {plot}.layout.font.color]"
    light = page.run(colors)
    page.set_dark(True)
    page.wait_for(f"{colors}[1] !== '{light[1]}'")
    dark = page.run(colors)
    page.set_dark(False)
    page.wait_for(f"{colors}[1] === '{light[1]}'")
    assert dark[0] != light[0]
    assert dark[1] != light[1]


def test_page_on_a_phone_starts_with_a_way_to_the_results_and_never_scrolls_sideways(phone_page):
    phone_page.press_tab()
    assert phone_page.run("document.activeElement.getAttribute('href')") == "#results"
    assert phone_page.run("document.documentElement.scrollWidth") <= 360
    assert phone_page.problems == []


def test_page_when_html_got_in_all_the_same_runs_no_script(phone_page):
    phone_page.run(
        "document.body.insertAdjacentHTML('beforeend', '<img src=\"data:,\" onerror=\"window.hacked = 1\">');"
        "const script = Object.assign(document.createElement('script'), {textContent: 'window.hacked = 1'});"
        "document.body.append(script)"
    )
    phone_page.wait_for("document.images.length === 1 && document.images[0].complete")
    assert phone_page.run("window.hacked === undefined")
    assert any("Content Security Policy" in problem for problem in phone_page.problems)


def test_page_for_who_does_not_see_says_every_plot_in_words_and_numbers(page):
    assert page.run(
        "[...document.querySelectorAll('figure')].every(figure =>"
        " figure.querySelector('[role=img]').ariaLabel && figure.querySelector('details table tbody tr'))"
    )
