"""Measures the time from a key press to the frame that shows it on the play page, in a slowed-down browser.

    python experiments/play_latency.py --slower 1 4 8 --speeds 20 60

Needs Debian's `chromium` (or Chrome). Starts `run.py play --example cartpole`, opens the page with the browser's
processor slowed down by each factor, lets the agent act at each speed, and presses a key repeatedly. The time is from
the key press to the frame that shows that the user acts. Prints a Markdown table, with the reached steps per second.
"""

import argparse
import re
import shutil
import signal
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from playwright.sync_api import sync_playwright

ROOT = Path(__file__).parents[1]
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
WATCH = """() => {
  window.latencies = [];
  let pressed = null;
  const wheel = document.getElementById("wheel");
  const noted = (event) => { if (event.key === "ArrowLeft" && !event.repeat) pressed = event.timeStamp; };
  addEventListener("keydown", noted, true);
  new MutationObserver(() => {
    if (pressed === null || wheel.getAttribute("aria-checked") === "true") return;
    const from = pressed;
    pressed = null;
    requestAnimationFrame(() => window.latencies.push(performance.now() - from));
  }).observe(wheel, { attributes: true });
}"""


def measure(page: Any, *, slower: float, speed: int, presses: int) -> tuple[float, list[float]]:
    """Reached steps per second, and milliseconds from each key press to the frame that shows it."""
    session = page.context.new_cdp_session(page)
    session.send("Emulation.setCPUThrottlingRate", {"rate": slower})
    page.evaluate(
        "value => { const s = document.getElementById('speed'); s.value = value; "
        "s.dispatchEvent(new Event('input')); }",
        speed,
    )
    page.evaluate(WATCH)
    first, begun = steps(page), page.evaluate("() => performance.now()")
    page.wait_for_timeout(5000)
    rate = (steps(page) - first) / (page.evaluate("() => performance.now()") - begun) * 1000
    for press in range(presses):
        page.keyboard.down("ArrowLeft")
        page.wait_for_function("count => window.latencies.length > count", arg=press)
        page.keyboard.up("ArrowLeft")
        page.keyboard.press("r")  # a new dream, before the pole falls in this one
        page.keyboard.press("g")
        page.wait_for_selector("#wheel[aria-checked=true]")
        page.wait_for_timeout(1500)
    return rate, page.evaluate("() => window.latencies")


def steps(page: Any) -> int:
    """The step that the page shows."""
    return int(page.inner_text("#moment-shown").split()[1])


def main() -> None:
    """Starts the server, measures, stops it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--example", default="cartpole")
    parser.add_argument("--slower", type=float, nargs="+", default=[1, 4, 8])
    parser.add_argument("--speeds", type=int, nargs="+", default=[20, 60])
    parser.add_argument("--presses", type=int, default=7)
    given = parser.parse_args()
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        sys.exit("There is no chromium: apt install chromium")
    command = [sys.executable, str(ROOT / "run.py"), "play", "--example", given.example, "--port", "0", "--no-browser"]
    server = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    address = next(match[0] for line in server.stdout if (match := re.search(r"http://\S+", line)))
    try:
        with sync_playwright() as playwright:
            chromium = playwright.chromium.launch(executable_path=browser, args=["--no-sandbox"])
            print("| slower | steps/s asked for | steps/s reached | key to picture, ms: median | worst |")
            print("|---|---|---|---|---|")
            for slower in given.slower:
                for speed in given.speeds:
                    page = chromium.new_page(viewport={"width": 1280, "height": 900})
                    page.set_default_timeout(120_000)
                    page.goto(address)
                    page.wait_for_function("() => Number(document.body.dataset.frames) > 5")
                    rate, times = measure(page, slower=slower, speed=speed, presses=given.presses)
                    page.close()
                    median, worst = statistics.median(times), max(times)
                    print(f"| {slower:g} | {speed} | {rate:.0f} | {median:.0f} | {worst:.0f} |", flush=True)
            chromium.close()
    finally:
        server.send_signal(signal.SIGINT)
        server.wait(60)


if __name__ == "__main__":
    main()
