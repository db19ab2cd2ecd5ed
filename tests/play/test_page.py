"""The page in a real browser: needs Debian's `chromium` (or Chrome), and is skipped without it."""

import io
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

pytestmark = pytest.mark.skipif(BROWSER is None, reason="no chromium: apt install chromium")


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("play")


@pytest.fixture(scope="module")
def address(recordings: Path) -> Iterator[str]:
    command = [sys.executable, str(ROOT / "run.py"), "play", "--example", "cartpole", "--port", "0", "--no-browser"]
    server = subprocess.Popen(command, cwd=recordings, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    found = next((re.search(r"http://\S+", line) for line in server.stdout if line.startswith("Open")), None)
    assert found, "the server printed no address"
    yield found[0]
    server.send_signal(signal.SIGINT)
    assert server.wait() == 0
    server.stdout.close()


@pytest.fixture(scope="module")
def chromium() -> Iterator:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def page(chromium, address: str) -> Iterator:
    page = chromium.new_page(viewport={"width": 1280, "height": 900})
    page.set_default_timeout(0)  # pytest limits each test
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda message: message.type == "error" and problems.append(message.text))
    page.goto(address)
    page.wait_for_function("() => Number(document.body.dataset.frames) > 3")
    yield page
    page.close()
    assert problems == []


def numbers(page, column: int) -> list[float]:
    """The state in the dream (column 1) or in the real environment (column 2)."""
    cells = page.locator(f"#vectors tr td:nth-child({column + 1})").all_inner_texts()
    return [float(cell) for cell in cells]


def restart_paused(page) -> None:
    """Starts a new dream in which the user acts, and no key is held."""
    if page.locator("#driver").get_attribute("aria-checked") == "true":
        page.keyboard.press("g")
        page.wait_for_selector("#driver[aria-checked=false]")
    page.keyboard.press("r")
    page.wait_for_function("() => document.getElementById('moment-shown').textContent === 'step 0'")


def wait_for_step(page, step: int) -> None:
    page.wait_for_function(
        "step => Number(document.getElementById('moment-shown').textContent.split(' ')[1]) >= step", arg=step
    )


def test_frames_are_drawn_continuously(page) -> None:
    first = int(page.evaluate("() => document.body.dataset.frames"))
    page.wait_for_function("first => Number(document.body.dataset.frames) > first + 20", arg=first)
    pixels = "document.getElementById(id).getContext('2d').getImageData(0, 0, 300, 200).data"
    ink = f"id => [...{pixels}].filter(x => x < 60).length"
    assert page.evaluate(ink, "dream") > 100  # the cart is black
    assert page.evaluate(ink, "real") > 100


@pytest.mark.parametrize(("key", "sign"), [("ArrowLeft", -1), ("ArrowRight", 1)])
def test_the_cart_moves_in_the_dream_like_in_the_real_environment(page, key: str, sign: int) -> None:
    restart_paused(page)
    page.keyboard.down(key)
    wait_for_step(page, 6)
    page.keyboard.up(key)
    page.wait_for_timeout(200)
    dreamed, real = numbers(page, 1), numbers(page, 2)
    assert sign * dreamed[1] > 0.5  # the cart's speed: one push is 0.2 m/s
    assert dreamed[1] == pytest.approx(real[1], abs=0.25)
    assert dreamed[2] == pytest.approx(real[2], abs=0.05)


def test_the_dream_is_paused_without_a_key(page) -> None:
    restart_paused(page)
    page.wait_for_timeout(400)
    assert page.locator("#moment-shown").inner_text() == "step 0"


def test_rewinding_and_branching(page) -> None:
    restart_paused(page)
    page.keyboard.down("ArrowLeft")
    wait_for_step(page, 5)
    page.keyboard.up("ArrowLeft")
    page.wait_for_timeout(200)
    end = page.locator("#moment-shown").inner_text()
    page.keyboard.press("Home")
    page.wait_for_function("() => document.getElementById('moment-shown').textContent === 'step 0'")
    start = numbers(page, 2)
    page.keyboard.press("End")
    page.wait_for_function("end => document.getElementById('moment-shown').textContent === end", arg=end)
    page.keyboard.press("Home")
    page.wait_for_function("() => document.getElementById('moment-shown').textContent === 'step 0'")
    assert numbers(page, 2) == start
    page.keyboard.down("ArrowRight")
    wait_for_step(page, 4)
    page.keyboard.up("ArrowRight")
    page.wait_for_timeout(200)
    assert numbers(page, 1)[1] > 0  # in this branch the cart moves the other way
    page.keyboard.press("[")
    page.wait_for_function("end => document.getElementById('moment-shown').textContent === end", arg=end)
    assert numbers(page, 1)[1] < 0


def test_the_agent_acts_again(page) -> None:
    restart_paused(page)
    page.keyboard.press("g")
    page.wait_for_selector("#driver[aria-checked=true]")
    wait_for_step(page, 10)
    assert "The agent acts" in page.locator("#status").inner_text()


def test_the_observing_agent_balances_the_real_pole(page) -> None:
    assert page.get_by_role("switch", name="Agent acts").get_attribute("aria-checked") == "true"
    assert page.get_by_role("switch", name="Agent observes").get_attribute("aria-checked") == "true"
    assert "Turn off “Agent observes”" in page.locator("#status").inner_text()
    wait_for_step(page, 100)  # without observations, the pole falls after 50 to 80
    dreamed, real = numbers(page, 1), numbers(page, 2)
    assert dreamed[2] == pytest.approx(real[2], abs=0.03)
    assert page.locator("#real-over").is_hidden()


def test_steps_without_observation_are_counted(page) -> None:
    restart_paused(page)
    page.keyboard.press("g")
    page.wait_for_selector("#driver[aria-checked=true]")
    wait_for_step(page, 3)
    page.get_by_role("switch", name="Agent observes").click()
    page.wait_for_function("() => document.getElementById('dream-note').textContent === '5 steps without observation'")
    assert "from its dream alone" in page.locator("#status").inner_text()
    page.keyboard.press("e")
    page.wait_for_function("() => document.getElementById('dream-note').textContent.startsWith('observes')")


def test_a_recording_can_be_downloaded(page, recordings: Path) -> None:
    restart_paused(page)
    page.keyboard.press("v")
    page.get_by_role("button", name="Stop and save").wait_for()
    page.keyboard.down("ArrowLeft")
    wait_for_step(page, 5)
    page.keyboard.up("ArrowLeft")
    page.keyboard.press("v")
    page.wait_for_selector("#saved li")
    names = page.locator("#saved a").all_inner_texts()
    assert [Path(name).suffix for name in names] == [".mp4", ".npz"]
    for name in names:
        assert (recordings / "runs" / "recordings" / name).stat().st_size > 500
    with page.expect_download() as download:
        page.locator("#saved a").first.click()
    assert download.value.suggested_filename == names[0]


def test_an_ended_dream_waits_for_a_restart(page) -> None:
    restart_paused(page)
    page.keyboard.press("e")  # an observing agent stops at the end of the real episode
    page.wait_for_selector("#observe[aria-checked=false]")
    page.keyboard.down("ArrowLeft")
    page.wait_for_selector("#dream-over:not([hidden])")
    page.wait_for_timeout(300)
    end = page.locator("#moment-shown").inner_text()
    page.wait_for_timeout(300)
    page.keyboard.up("ArrowLeft")
    page.keyboard.press("g")
    page.wait_for_timeout(300)
    assert page.locator("#moment-shown").inner_text() == end
    assert "12°" in page.locator("#dream-over").inner_text()
    assert "The dream has ended" in page.locator("#status").inner_text()
    page.keyboard.press("r")
    page.wait_for_selector("#dream-over", state="hidden")
    wait_for_step(page, 5)  # the agent acts


def test_keys_work_after_the_mouse_moved_a_slider(page) -> None:
    restart_paused(page)
    page.keyboard.down("ArrowLeft")
    wait_for_step(page, 5)
    page.keyboard.up("ArrowLeft")
    box = page.locator("#timeline").bounding_box()
    page.mouse.click(box["x"] + 5, box["y"] + box["height"] / 2)
    page.wait_for_function("() => document.getElementById('moment-shown').textContent === 'step 0'")
    page.keyboard.down("ArrowRight")
    wait_for_step(page, 3)
    page.keyboard.up("ArrowRight")
    page.wait_for_timeout(200)
    assert numbers(page, 1)[1] > 0
    page.locator("#timeline").focus()
    page.keyboard.press("e")
    page.wait_for_selector("#observe[aria-checked=false]")


def test_a_dream_starts_at_an_existing_row(page) -> None:
    restart_paused(page)
    page.get_by_text("Start from an episode").click()
    page.select_option("#episode", index=1)
    most = int(page.locator("#row").get_attribute("max"))
    assert page.locator("#row-most").inner_text() == f"of {most}"
    page.fill("#row", str(most + 1))
    page.get_by_role("button", name="Start", exact=True).click()
    assert not page.locator("#begin").evaluate("form => form.checkValidity()")
    page.fill("#row", "5")
    page.get_by_role("button", name="Start", exact=True).click()
    page.wait_for_function("() => document.getElementById('moment-shown').textContent === 'step 0'")


def test_the_page_works_with_only_a_pointer(page) -> None:
    restart_paused(page)
    button = page.get_by_role("button", name="push right")
    button.hover()
    page.mouse.down()
    wait_for_step(page, 3)
    page.mouse.up()
    page.wait_for_timeout(150)
    assert numbers(page, 1)[1] > 0.2
    box = page.locator("#tree").bounding_box()
    page.mouse.click(box["x"] + 9, box["y"] + 10)
    page.wait_for_function("() => document.getElementById('moment-shown').textContent === 'step 0'")


VIEWS = {"desktop": (1280, 900), "phone": (390, 844), "phone in landscape": (844, 390), "small phone": (320, 600)}


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_is_cut_off(chromium, address: str, view: str, scheme: str) -> None:
    width, height = VIEWS[view]
    page = chromium.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
    page.goto(address)
    page.wait_for_function("() => Number(document.body.dataset.frames) > 3")
    assert page.evaluate("() => document.documentElement.scrollWidth") <= width
    right = "e => e.getBoundingClientRect().right > innerWidth + 1"
    all_of = "[...document.querySelectorAll('button, select, input, canvas')]"
    assert page.evaluate(f"() => {all_of}.filter({right}).map(e => e.id)") == []
    moves = page.locator("#moves").bounding_box()
    assert moves["y"] + moves["height"] <= height + 1
    page.close()


PAINT = """async ([width, height]) => {
  const { paint } = await import("./screen.js");
  document.getElementById("moves").remove();  // on a small screen they cover part of the page
  for (const id of ["dream", "real"]) {
    const drawn = new OffscreenCanvas(width, height), pen = drawn.getContext("2d");
    pen.fillStyle = "#00ff00"; pen.fillRect(0, 0, width, height);
    pen.fillStyle = "#ff0000"; pen.fillRect(0, height - 20, width, 20);  // the lowest rows
    paint(document.getElementById(id), await createImageBitmap(drawn), {}, "dream");
  }
}"""


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("shape", [(300, 300), (300, 200), (200, 300), (400, 100)])
def test_an_image_of_any_shape_is_shown_completely(chromium, address: str, view: str, shape: tuple[int, int]) -> None:
    width, height = VIEWS[view]
    page = chromium.new_page(viewport={"width": width, "height": height})
    page.route_web_socket(re.compile("/ws"), lambda socket: None)  # nothing else is drawn
    page.goto(address)
    page.evaluate(PAINT, list(shape))
    for name in ("dream", "real"):
        canvas = page.locator(f"#{name}")
        box, screen = canvas.bounding_box(), canvas.locator("..").bounding_box()
        assert box == pytest.approx(screen)
        shown = np.asarray(Image.open(io.BytesIO(canvas.locator("..").screenshot())).convert("RGB")).astype(int)
        red = (shown[..., 0] > 200) & (shown[..., 1] < 60)
        green = (shown[..., 1] > 200) & (shown[..., 0] < 60)
        # All of the lowest rows are visible, at full width and in proportion.
        assert red.any(1).sum() == pytest.approx(20 / shape[1] * (red | green).any(1).sum(), abs=2)
        assert (red | green).any(0).sum() / (red | green).any(1).sum() == pytest.approx(shape[0] / shape[1], rel=0.05)
    page.close()


def test_keys_and_controls_before_the_first_moment_cause_no_errors(chromium, address: str) -> None:
    page = chromium.new_page(viewport={"width": 1280, "height": 900})
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda message: message.type == "error" and problems.append(message.text))
    page.route_web_socket(re.compile("/ws"), lambda socket: socket.send('{"wait": "Compiling ..."}'))
    page.goto(address)
    page.get_by_text("Compiling ...").wait_for()
    for key in [*"gerv .[]+-1", "Backspace", "Home", "End", "PageUp", "ArrowLeft"]:
        page.keyboard.press(key)
    for control in page.locator("button, input, select, #tree").all():
        control.dispatch_event("click")
        control.dispatch_event("input")
        control.dispatch_event("change")
    page.locator("#begin").evaluate("form => form.requestSubmit()")
    page.close()
    assert problems == []
