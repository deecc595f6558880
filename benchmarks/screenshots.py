"""Pictures of the page that `shortrun serve` shows: each tab in a wide window and on a phone.

    python -m benchmarks.screenshots RUN --out docs/figures

Needs shortrun[serve,browser] and Chromium. Writes serve_inpaint.png, serve_layers.png, serve_walk.png,
serve_samples.png, serve_run.png and each as serve_NAME_phone.png, with 256 colours.
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import tyro
from PIL import Image

from shortrun.errors import InputError, require_package
from shortrun.figures.images import write_png

WIDTHS = {"": (1000, 760), "_phone": (390, 844)}
BUTTONS = {
    "inpaint": "Fill in what is painted over",
    "layers": "Draw this layer anew",
    "walk": "Walk",
    "samples": "Draw",
}
PATIENCE = 120.0
"""Seconds that the server and the browser may take."""


@dataclass(frozen=True)
class Arguments:
    """Write pictures of the page of a run."""

    run: tyro.conf.Positional[Path]
    """Folder of a run, or pretrained:digits."""
    out: Path
    """Folder to write to."""


def main() -> None:
    """Serve the run, look at each tab, write what is seen."""
    arguments = tyro.cli(Arguments)
    require_package("playwright", "browser")
    browser_path = shutil.which("chromium") or shutil.which("chromium-browser")
    if browser_path is None:
        raise InputError("chromium", problem="not installed", instead="apt-get install chromium")

    from playwright.sync_api import sync_playwright  # pyright: ignore[reportMissingImports]

    with serving(arguments.run) as address, sync_playwright() as driver:
        # a container has no sandbox for root
        browser = driver.chromium.launch(executable_path=browser_path, args=["--no-sandbox"])
        for suffix, (width, height) in WIDTHS.items():
            page = browser.new_page(viewport={"width": width, "height": height})
            page.set_default_timeout(1000 * PATIENCE)
            page.goto(address)
            page.wait_for_function("document.querySelector('#paint canvas')?.width > 0 && window.shortrunStrokes")
            for tab in (*BUTTONS, "run"):
                path = arguments.out / f"serve_{tab}{suffix}.png"
                show(page, tab)
                write_png(taken(page, tab), path)
                print(f"wrote {path}")
        browser.close()


@contextmanager
def serving(run: Path) -> Iterator[str]:
    """Serve a run while the block runs; give its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}/"
    server = subprocess.Popen(
        [sys.executable, "-m", "shortrun", "serve", str(run), "--port", str(port)], env=os.environ
    )
    try:
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until and server.poll() is None:
            try:
                urllib.request.urlopen(address, timeout=5).close()
                break
            except OSError:
                time.sleep(0.5)
        yield address
    finally:
        server.send_signal(signal.SIGINT)
        server.wait()


def show(page: Any, tab: str) -> None:
    """Open a tab, use it as a visitor would, and wait for what it shows."""
    page.get_by_role("tab", name=tab.capitalize()).click()
    if tab == "inpaint":
        box = page.locator("#paint canvas").bounding_box()
        page.mouse.move(box["x"] + 0.2 * box["width"], box["y"] + 0.55 * box["height"])
        page.mouse.down()
        page.mouse.move(box["x"] + 0.8 * box["width"], box["y"] + 0.55 * box["height"], steps=8)
        page.mouse.up()
    if tab in BUTTONS:
        before = page.locator(".shortrun img").count()
        page.get_by_role("button", name=BUTTONS[tab], exact=True).locator("visible=true").click()
        page.wait_for_function(f"document.querySelectorAll('.shortrun img').length > {before}")
    if tab == "inpaint":
        # the last step is said as "Step K of K."
        page.wait_for_function("/^Step (\\d+) of \\1\\./.test(document.querySelector('#filled p')?.innerText)")
    page.mouse.move(0, 0)
    page.wait_for_timeout(1000)


def taken(page: Any, tab: str) -> Image.Image:
    """Return what a window shows; of the long page of a run the first screen, of the others all."""
    page.evaluate("window.scrollTo(0, 0)")
    picture = Image.open(BytesIO(page.screenshot(full_page=tab != "run")))
    return picture.convert("RGB").quantize(256, dither=Image.Dither.NONE)


if __name__ == "__main__":
    main()
