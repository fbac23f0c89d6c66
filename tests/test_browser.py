"""The page in a real browser: it loads nothing, says no error, sorts, filters, turns pages, fits a phone and prints.

Chromium is driven over its own pipe (DevTools protocol, JSON messages that end in a zero byte), so nothing listens on a
port and no driver is needed.
"""

import base64
import contextlib
import html
import io
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time

import matplotlib.image
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from simulated import exactly, fill, planted, read_grid, run

from reports import page
from results import Store

CHROMIUM = shutil.which("chromium")
SWITCHES = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-quic", "--no-first-run",
    "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage", "--remote-debugging-pipe",
)  # fmt: skip
PIPES = (
    "import os, sys; os.dup2(int(sys.argv[1]), 3); os.dup2(int(sys.argv[2]), 4); os.execv(sys.argv[3], sys.argv[3:])"
)
PATIENCE_S = 60.0
ACTIVATIONS = ("relu", "leaky_relu", "elu", "maxout", "tanh", "sigmoid")
DEPTHS = tuple(range(1, 11))


class Chromium:
    """A browser with one tab. `events`: what it said of the tab since it was opened, as (method, parameters)."""

    def __init__(self, folder):
        its_in, self.out = os.pipe()
        self.inn, its_out = os.pipe()
        command = [sys.executable, "-I", "-c", PIPES, str(its_in), str(its_out), CHROMIUM, *SWITCHES]
        quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        profile = f"--user-data-dir={folder}"
        self.process = subprocess.Popen(
            [*command, profile, "about:blank"], pass_fds=(its_in, its_out), start_new_session=True, **quiet
        )
        os.close(its_in)
        os.close(its_out)
        self.rest, self.count, self.events, self.session = b"", 0, [], None
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.ask(f"{domain}.enable")

    def ask(self, method, **parameters):
        """Send a command and give its result. AssertionError with the browser's words if it fails."""
        self.count += 1
        message = {"id": self.count, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.out, json.dumps(message).encode() + b"\0")
        while True:
            said = self.listen()
            if said.get("id") == self.count:
                assert "error" not in said, (method, said["error"])
                return said["result"]
            self.events.append((said["method"], said["params"]))

    def listen(self):
        """The next message."""
        deadline = time.monotonic() + PATIENCE_S
        while b"\0" not in self.rest:
            ready, _, _ = select.select([self.inn], [], [], max(0.0, deadline - time.monotonic()))
            assert ready, f"chromium said nothing for {PATIENCE_S:.0f} s"
            read = os.read(self.inn, 1 << 20)
            assert read, "chromium has ended"
            self.rest += read
        first, _, self.rest = self.rest.partition(b"\0")
        return json.loads(first)

    def open(self, path, width=1280, height=900):
        """Load a page in a window of this size and wait until it is there."""
        self.ask(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 500
        )
        self.events.clear()
        assert "errorText" not in self.ask("Page.navigate", url=path.as_uri())
        while not any(method == "Page.loadEventFired" for method, _ in self.events):
            said = self.listen()
            self.events.append((said["method"], said["params"]))

    def evaluate(self, expression):
        """The value of an expression of JavaScript in the page."""
        said = self.ask("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in said, said["exceptionDetails"]
        return said["result"].get("value")

    def said(self, *methods):
        """Parameters of the events of these methods."""
        return [parameters for method, parameters in self.events if method in methods]

    def picture(self):
        """What the window shows, (height, width, 3) in 0 to 1."""
        png = base64.b64decode(self.ask("Page.captureScreenshot", format="png")["data"])
        return matplotlib.image.imread(io.BytesIO(png))[..., :3]

    def close(self):
        self.session = None
        with contextlib.suppress(AssertionError, OSError):
            self.ask("Browser.close")
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        os.close(self.out)
        os.close(self.inn)


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    if CHROMIUM is None:
        reason = "chromium is not installed: install Debian's chromium"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    chromium = Chromium(tmp_path_factory.mktemp("profile"))
    yield chromium
    chromium.close()


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """The page of 60 comparisons a family with differences of both signs, some none, a diverged and a missing run."""
    folder = tmp_path_factory.mktemp("report of a 'study' & more")
    grid = read_grid(folder, ACTIVATIONS, DEPTHS, seeds=6)
    effects = {name: exactly(6, 0.03 * (i % 3 - 1), 0.004, seed=i) for i, name in enumerate(ACTIVATIONS)}
    runs = planted(grid, effects)[1:]
    runs[-1] = run(runs[-1]["cell"], runs[-1]["seed"], "diverged")
    page.build(grid, fill(Store(folder / "store"), runs), folder)
    return folder / "index.html"


TABLE = "document.querySelector('#family-1')"
SHOWN = f"[...{TABLE}.querySelectorAll('tbody tr')].filter(row => row.offsetParent !== null)"


def column(browser, i):
    """Sort values of a column of the first table of comparisons, of the rows that show."""
    return browser.evaluate(f"{SHOWN}.map(row => row.cells[{i}].dataset.value ?? row.cells[{i}].textContent)")


def click_head(browser, title):
    """Click the header; give its column and aria-sort."""
    return browser.evaluate(
        f"""(() => {{
            const heads = [...{TABLE}.querySelectorAll('th')];
            const i = heads.findIndex((head) => head.textContent.startsWith('{title}'));
            heads[i].querySelector('[role=button]').click();
            return [i, heads[i].getAttribute('aria-sort'), heads.filter((head) => head.ariaSort !== 'none').length];
        }})()"""
    )


def type_filter(browser, words):
    browser.evaluate(
        f"""(() => {{
            const input = {TABLE}.querySelector('input');
            input.value = '{words}';
            input.dispatchEvent(new Event('input'));
        }})()"""
    )


def test_the_page_loads_nothing_but_itself_and_says_no_error(browser, report):
    browser.open(report)
    assert browser.evaluate("document.title").startswith("simulated")
    asked = [each["request"]["url"] for each in browser.said("Network.requestWillBeSent")]
    assert [url for url in asked if not url.startswith("data:")] == [report.as_uri()]
    assert browser.said("Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded") == []


def test_a_request_and_an_error_would_be_seen(browser, tmp_path):
    path = tmp_path / "bad.html"
    path.write_text('<img src="https://example.invalid/x.png"><script>console.error("x"); throw Error("y")</script>')
    browser.open(path)
    assert len(browser.said("Network.requestWillBeSent")) == 2
    assert len(browser.said("Runtime.consoleAPICalled")) == 1
    assert len(browser.said("Runtime.exceptionThrown")) == 1


def test_a_picture_of_the_page_is_not_blank(browser, report):
    browser.open(report)
    picture = browser.picture()
    assert picture.shape == (900, 1280, 3)
    assert picture.std() > 0.05
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 100
    assert browser.evaluate("[...document.querySelectorAll('svg')].every(svg => svg.getBBox().width > 100)")


def test_a_click_on_a_header_sorts_by_numbers_and_a_second_one_turns_it_round(browser, report):
    browser.open(report)
    i, direction, sorted_by = click_head(browser, "difference")
    values = [float(value) for value in column(browser, i)]
    assert (direction, sorted_by) == ("ascending", 1)
    assert values == sorted(values)
    assert min(values) < -0.025
    assert click_head(browser, "difference")[1] == "descending"
    values = [float(value) for value in column(browser, i)]
    assert values == sorted(values, reverse=True)
    assert max(values) > 0.025


def test_names_are_sorted_with_their_numbers_as_numbers(browser, report):
    browser.open(report)
    i, direction, sorted_by = click_head(browser, "cell")
    assert (direction, sorted_by) == ("ascending", 1)
    assert column(browser, i)[:10] == [f"elu, depth {depth}" for depth in DEPTHS]


def test_a_header_is_reached_and_pressed_by_keyboard(browser, report):
    browser.open(report)
    browser.evaluate(f"{TABLE}.querySelectorAll('th [role=button]')[2].focus()")
    for key, code, text, direction in (("Enter", 13, "\r", "ascending"), (" ", 32, " ", "descending")):
        for kind in ("keyDown", "keyUp"):
            browser.ask("Input.dispatchKeyEvent", type=kind, key=key, windowsVirtualKeyCode=code, text=text)
        assert browser.evaluate(f"{TABLE}.querySelectorAll('th')[2].ariaSort") == direction
    reached = "[...document.querySelectorAll('.data th')].every(head => head.firstElementChild.tabIndex === 0)"
    assert browser.evaluate(reached)


def test_words_filter_the_rows(browser, report):
    browser.open(report)
    type_filter(browser, "TANH 10")
    assert column(browser, 0) == ["tanh, depth 10"]
    assert browser.evaluate(f"{TABLE}.querySelector('output').textContent") == "1 rows, of 60 in all"
    type_filter(browser, "no such words")
    assert column(browser, 0) == []
    type_filter(browser, "")
    assert len(column(browser, 0)) == 50


def test_a_verdict_filters_the_rows(browser, report):
    browser.open(report)
    verdicts = browser.evaluate(f"[...{TABLE}.querySelectorAll('option')].map(option => option.value)")
    assert set(verdicts) > {"", "different", "equivalent"}
    select = f"{TABLE}.querySelector('select')"
    browser.evaluate(f"{select}.value = 'equivalent'; {select}.dispatchEvent(new Event('change'))")
    shown = browser.evaluate(f"{SHOWN}.map(row => row.cells[1].textContent)")
    assert 10 <= len(shown) <= 20
    assert all("equivalent" in words for words in shown)


def test_long_tables_have_pages(browser, report):
    browser.open(report)
    first = column(browser, 0)
    buttons = f"{TABLE}.querySelectorAll('.pages button')"
    assert len(first) == 50
    assert browser.evaluate(f"[...{buttons}].map(button => button.disabled)") == [True, False]
    browser.evaluate(f"{buttons}[1].click()")
    second = column(browser, 0)
    assert len(second) == 10
    assert set(first) | set(second) == {f"{name}, depth {depth}" for name in ACTIVATIONS for depth in DEPTHS}
    assert browser.evaluate(f"{TABLE}.querySelector('output').textContent") == "51 to 60 of 60 rows"
    assert browser.evaluate(f"[...{buttons}].map(button => button.disabled)") == [False, True]
    browser.evaluate(f"{buttons}[0].click()")
    assert column(browser, 0) == first


def test_on_a_phone_nothing_is_wider_than_the_screen(browser, report):
    browser.open(report, width=375, height=800)
    browser.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")
    assert browser.evaluate("[innerWidth, document.scrollingElement.scrollWidth]") == [375, 375]
    outside = """[...document.querySelectorAll('main *')].filter(each => !each.closest('.scroll, .wide .picture, pre')
        && each.getBoundingClientRect().right > innerWidth + 0.5).map(each => each.outerHTML.slice(0, 200))"""
    assert browser.evaluate(outside) == []
    small = """[...document.querySelectorAll('main p, main td, main li, main dd')]
        .filter(each => parseFloat(getComputedStyle(each).fontSize) < 11).length"""
    assert browser.evaluate(small) == 0


def test_on_paper_every_row_shows_and_no_control(browser, report):
    browser.open(report)
    browser.ask("Emulation.setEmulatedMedia", media="print")
    try:
        browser.evaluate("dispatchEvent(new Event('beforeprint'))")
        assert len(column(browser, 0)) == 60
        controls = "[...document.querySelectorAll('.controls, nav')].filter(each => each.offsetParent !== null).length"
        assert browser.evaluate(controls) == 0
        hidden = "[...document.querySelectorAll('tr, svg')].filter(e => e.getBoundingClientRect().height === 0).length"
        assert browser.evaluate(hidden) == 0
        assert browser.evaluate("document.querySelectorAll('thead button').length") == 0, (
            "such a header is not repeated"
        )
        browser.evaluate("dispatchEvent(new Event('afterprint'))")
        assert browser.evaluate("document.querySelectorAll('details:not([open])').length") > 0
    finally:
        browser.ask("Emulation.setEmulatedMedia", media="")


def test_the_page_prints(browser, report):
    browser.open(report)
    pdf = base64.b64decode(browser.ask("Page.printToPDF")["data"])
    assert pdf.startswith(b"%PDF-")
    assert pdf.rstrip().endswith(b"%%EOF")
    assert 5 < pdf.count(b"/Type /Page\n") + pdf.count(b"/Type /Page ") < 60


def test_the_command_line_prints_too(browser, report, tmp_path):
    profile = f"--user-data-dir={tmp_path / 'profile'}"
    switches = [switch for switch in SWITCHES if "pipe" not in switch]
    command = [CHROMIUM, *switches, profile, f"--print-to-pdf={tmp_path / 'page.pdf'}", report.as_uri()]
    subprocess.run(command, check=True, capture_output=True, timeout=PATIENCE_S)
    assert (tmp_path / "page.pdf").read_bytes().startswith(b"%PDF-")


def test_without_javascript_every_row_shows(browser, report):
    browser.ask("Emulation.setScriptExecutionDisabled", value=True)
    try:
        browser.open(report)
        [root] = [browser.ask("DOM.getDocument")["root"]["nodeId"]]
        rows = browser.ask("DOM.querySelectorAll", nodeId=root, selector="#family-1 tbody tr:not(.off)")["nodeIds"]
        controls = browser.ask("DOM.querySelectorAll", nodeId=root, selector=".controls:not([hidden])")["nodeIds"]
        assert (len(rows), len(controls)) == (60, 0)
    finally:
        browser.ask("Emulation.setScriptExecutionDisabled", value=False)


STRIKE = "window.struck=1;alert(1)"
HOSTILE = (
    f"</script><script>{STRIKE}</script>", f'"><img src=x onerror="{STRIKE}">', f"javascript:{STRIKE}",
    f"<svg onload={STRIKE}>", f"' onmouseover='{STRIKE}", f"]]>--><iframe srcdoc='<script>{STRIKE}</script>'>",
    "{{ 7*7 }}{% raw %}",
)  # fmt: skip
CLAIM = """[[claim]]
id = {0}
source = {0}
statement = {0}
first = {{ order = "weight-act-bn" }}
second = {{ order = "weight-bn-act" }}
metric = "test_accuracy"
expected = "greater"
"""


def hostile_study(folder, text):
    """A grid, store and claims in which all that is free to be chosen is this text."""
    arm = text.replace(" - ", "-")
    grid = folder / f"{text.replace('/', '|')}.toml"
    sound = read_grid(folder, seeds=6)
    arms = f"arms = {{ {json.dumps(arm)} = 'weight-bn-act', b = 'weight-act-bn' }}"
    lines = [arms if line.startswith("arms") else line for line in sound.text.splitlines()]
    lines = [f"contrasts = [{json.dumps('b - ' + arm)}]" if line.startswith("contrasts") else line for line in lines]
    grid.write_text("\n".join([f"# {text}", *lines]))
    runs = planted(sound, {"relu": exactly(6, 0.05, 0.01)})
    runs[0] = run(runs[0]["cell"], 0, "failed")
    runs[-1] = run(runs[-1]["cell"], 5, "diverged")
    store = fill(Store(folder / "store"), runs, trial=lambda row: f"{row['cell'].cell_id}{row['seed']}")
    free = ("error", "engine", "code", "data", "commit", "versions", "host", "device", "trial")
    for i, path in enumerate(store.files("runs")):
        rows = pq.read_table(path)
        for name in free:
            at = rows.schema.get_field_index(name)
            words = text if name in ("error", "code", "data") else f"{text} {i % 3}"
            rows = rows.set_column(at, rows.schema.field(at), pa.array([words] * len(rows), pa.string()))
        pq.write_table(rows, path)
        if i == 2:  # a second result of the same run: a conflict
            at = rows.schema.get_field_index("test_accuracy")
            other = rows.set_column(at, rows.schema.field(at), pa.array([0.1] * len(rows), rows.schema.field(at).type))
            pq.write_table(other, path.with_name("other.parquet"))
    (folder / "claims.toml").write_text(CLAIM.format(json.dumps(text)))
    return grid, store


@pytest.mark.parametrize("text", HOSTILE)
def test_nothing_that_a_study_says_is_run_by_the_page(browser, tmp_path, told, monkeypatch, text):
    grid, store = hostile_study(tmp_path, text)
    monkeypatch.chdir(tmp_path)
    code, _, errors = told("report", grid, "--store", store.path, "--claims", "claims.toml")
    assert (code, errors) == (0, "")
    built = tmp_path / "reports" / "build" / grid.stem / "index.html"
    assert text in html.unescape(built.read_text())
    browser.open(built)
    browser.evaluate("new Promise(done => setTimeout(done, 200))")
    assert browser.evaluate("window.struck") is None
    assert browser.said("Page.javascriptDialogOpening", "Runtime.exceptionThrown", "Log.entryAdded") == []
    assert browser.evaluate("document.querySelectorAll('script').length") == 1
    assert browser.evaluate("document.querySelectorAll('img, iframe, object, embed, link, base, form').length") == 0
    handlers = "[...document.querySelectorAll('*')].flatMap(e => e.getAttributeNames()).filter(n => n.startsWith('on'))"
    assert browser.evaluate(handlers) == []
    assert browser.evaluate("[...document.links].filter(a => a.protocol !== 'file:').length") == 0
    for figure in sorted((built.parent / "figures").glob("*.svg")):
        browser.open(figure)
        assert browser.evaluate("window.struck") is None
        assert browser.evaluate("document.querySelectorAll('script, foreignObject, iframe, a').length") == 0


def test_what_a_study_says_names_no_file_outside_its_report(tmp_path, told, monkeypatch):
    grid, store = hostile_study(tmp_path, "../../../struck")
    before = {path for path in tmp_path.rglob("*") if path.is_file()}
    monkeypatch.chdir(tmp_path)
    told("report", grid, "--store", store.path, "--claims", "claims.toml")
    report = tmp_path / "reports" / "build" / grid.stem
    made = {path for path in tmp_path.rglob("*") if path.is_file()} - before
    assert report / "index.html" in made
    assert [path for path in made if not path.is_relative_to(report)] == []
    assert not list(tmp_path.parent.glob("struck*"))


def test_a_script_that_is_not_the_pages_own_would_not_be_run(browser, report, tmp_path):
    page_text = report.read_text()
    for script in (f"<script>{STRIKE}</script>", f'<img src=x onerror="{STRIKE}">'):
        (tmp_path / "index.html").write_text(page_text.replace("<main>", f"<main>{script}"))
        browser.open(tmp_path / "index.html")
        assert browser.evaluate("window.struck") is None
        assert browser.said("Log.entryAdded")
