"""Takes the pictures of the page in docs/images: on a desktop and on a phone, in light and dark colours.

    python experiments/page_pictures.py            # needs Debian's `chromium` (or Chrome)

Each picture shows the CartPole example after 40 steps with observations and 40 steps without.
"""

import io
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import sync_playwright

ROOT = Path(__file__).parents[1]
IMAGES = ROOT / "docs" / "images"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
WIDTHS = {"desktop": 1280, "phone": 390}  # CSS pixels
OBSERVED, DREAMED = 40, 80  # steps
COLOURS = 128  # of each picture's palette


def wait_for_step(page: Any, step: int) -> None:
    """Waits until the page shows this step or a later one."""
    shown = "Number(document.getElementById('moment-shown').textContent.split(' ')[1])"
    page.wait_for_function(f"step => {shown} >= step", arg=step)


def take(browser: Any, address: str, file: Path, *, width: int, colours: str) -> None:
    """Writes one picture of the whole page as a PNG with a palette."""
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=colours)
    page.goto(address)
    wait_for_step(page, OBSERVED)
    page.keyboard.press("e")
    wait_for_step(page, DREAMED)
    page.keyboard.press(" ")
    page.wait_for_timeout(500)  # milliseconds, until the last frame is drawn
    picture = Image.open(io.BytesIO(page.screenshot(full_page=True))).convert("RGB")
    picture.quantize(COLOURS, dither=Image.Dither.NONE).save(file, optimize=True)
    page.close()
    print(f"{file.relative_to(ROOT)}: {file.stat().st_size / 1000:.0f} kB")


def main() -> None:
    """Starts the page on a free port and takes all pictures."""
    executable = next(filter(None, map(shutil.which, BROWSERS)), None)
    if executable is None:
        sys.exit("error: no chromium. Install it: apt install chromium")
    command = [sys.executable, str(ROOT / "run.py"), "play", "--example", "cartpole", "--port", "0", "--no-browser"]
    with (
        tempfile.TemporaryDirectory() as folder,
        subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True) as server,
        sync_playwright() as playwright,
    ):
        assert server.stdout is not None
        address = next(found[0] for line in server.stdout if (found := re.search(r"http://\S+", line)))
        try:
            browser = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox"])
            for device, width in WIDTHS.items():
                for colours in ("light", "dark"):
                    take(browser, address, IMAGES / f"play-{device}-{colours}.png", width=width, colours=colours)
            browser.close()
        finally:
            server.send_signal(signal.SIGINT)


if __name__ == "__main__":
    main()
