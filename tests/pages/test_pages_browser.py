"""The page in a real browser: painted with the mouse, filled in, and read back."""

import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from task_learners import images, small_learner

from shortrun.errors import installed
from shortrun.figures.images import to_bytes
from shortrun.pages.play import Play
from shortrun.pages.strokes import read_strokes
from shortrun.tasks import inpaint

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
MISSING = [name for name in ("gradio", "playwright") if not installed(name)] + ([] if CHROMIUM else ["Chromium"])
pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}")

SHAPE = (3, 8, 8)
PATIENCE = 60_000
"""Milliseconds that a machine with other work may take to answer."""
SHOWN = "document.querySelector('#filled p')?.innerText.startsWith('Step 6 of 6')"
READ = """async (index) => {
  const picture = document.querySelectorAll('#filled img')[index];
  await picture.decode();
  const sheet = document.createElement('canvas');
  [sheet.width, sheet.height] = [picture.naturalWidth, picture.naturalHeight];
  sheet.getContext('2d').drawImage(picture, 0, 0);
  return [...sheet.getContext('2d').getImageData(0, 0, sheet.width, sheet.height).data];
}"""
"""Reads the pixels of a picture as the browser has them: red, green, blue and alpha of each."""


@pytest.fixture(scope="module")
def play() -> Play:
    return Play(small_learner(image_shape=SHAPE), images(5, SHAPE))


@pytest.fixture(scope="module")
def address(play: Play, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    from shortrun.commands.serve import set_offline

    set_offline(str(tmp_path_factory.mktemp("uploads")), "127.0.0.1")
    from shortrun.pages.playground import build, launch, stop

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    page = build(play, "<p>about the run</p>", max_upload=1, steps=6)
    yield launch(page, "127.0.0.1", port, max_upload=1)
    stop(page)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright  # pyright: ignore[reportMissingImports]

    with sync_playwright() as driver:
        # a container has no sandbox for root
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


def opened(browser: Any, address: str, width: int = 1100) -> tuple[Any, list[str]]:
    """Return the page, and a list to which requests to others than its server will be added."""
    page = browser.new_page(viewport={"width": width, "height": 900})
    page.set_default_timeout(PATIENCE)
    outside: list[str] = []
    page.on("request", lambda request: _note(request.url, address, outside))
    page.on("dialog", lambda dialog: (outside.append(dialog.message), dialog.dismiss()))
    page.goto(address)
    page.wait_for_function("document.querySelector('#paint canvas')?.width > 0 && window.shortrunStrokes")
    return page, outside


def _note(url: str, address: str, outside: list[str]) -> None:
    if not url.startswith((address, "data:", "blob:")):
        outside.append(url)


def paint(page: Any) -> None:
    """Draw a stroke from left to right through the middle of the picture."""
    box = page.locator("#paint canvas").bounding_box()
    at = [(box["x"] + across * box["width"], box["y"] + 0.45 * box["height"]) for across in (0.2, 0.8)]
    page.mouse.move(*at[0])
    page.mouse.down()
    page.mouse.move(*at[1], steps=8)
    page.mouse.up()


def fill(page: Any) -> None:
    page.get_by_role("button", name="Fill in what is painted over").click()
    page.wait_for_function(SHOWN)


def read(page: Any, index: int) -> np.ndarray:
    return np.array(page.evaluate(READ, index), dtype=np.uint8).reshape(*SHAPE[1:], 4)[..., :3]


@pytest.mark.parametrize("width", [1100, 390])
def test_observed_pixels_are_untouched_and_the_others_are_what_inpaint_returns(
    browser: Any, address: str, play: Play, width: int
) -> None:
    page, outside = opened(browser, address, width)
    paint(page)
    painted = read_strokes(page.evaluate("window.shortrunStrokes()"), SHAPE[1:])
    assert 5 <= int(painted.sum()) < 30
    fill(page)
    made, whole = read(page, 1), to_bytes(play.x[:1])[0]
    assert np.array_equal(made[~painted.numpy()], whole[~painted.numpy()])
    rng = torch.Generator().manual_seed(0)
    wanted = inpaint(play.learner, play.x[:1], (~painted)[None, None].float(), rng, completions=8, steps=6)
    assert np.array_equal(made, to_bytes(wanted.mean)[0])
    assert outside == [], "nobody else is asked for anything"
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.get_by_role("tab").count() == 5
    page.close()


def test_another_image_erasing_and_an_empty_sheet(browser: Any, address: str) -> None:
    page, _ = opened(browser, address)
    paint(page)
    page.locator("#paint .erase").check()
    paint(page)
    assert page.evaluate("window.shortrunStrokes()") == "64"
    page.get_by_role("button", name="Fill in what is painted over").click()
    page.get_by_text("nothing is painted over").wait_for()
    page.locator("#paint .erase").uncheck()
    paint(page)
    page.locator("#paint .clear").click()
    assert page.evaluate("window.shortrunStrokes()") == "64"
    page.close()


def test_an_upload_that_is_damaged_or_too_large_is_said(browser: Any, address: str, tmp_path: Path) -> None:
    page, outside = opened(browser, address)
    hostile = tmp_path / "<img src=x onerror=alert(1)>.png"
    hostile.write_bytes(b"no picture")
    page.locator("input[type=file]").first.set_input_files(hostile)
    page.get_by_text("damaged or of an unknown kind").wait_for()
    assert str(tmp_path) not in page.locator("body").inner_text()
    page.reload()
    page.wait_for_function("document.querySelector('#paint canvas')?.width > 0")
    large = tmp_path / "large.png"
    large.write_bytes(bytes(2_000_000))
    page.locator("input[type=file]").first.set_input_files(large)
    page.get_by_text("exceed").wait_for()
    assert outside == []
    page.close()


def test_a_picture_of_ones_own_is_filled_in(browser: Any, address: str, tmp_path: Path) -> None:
    page, _ = opened(browser, address)
    own = tmp_path / "own.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (24, 40, 3), dtype=np.uint8)).save(own)
    page.locator("input[type=file]").first.set_input_files(own)
    page.wait_for_function("document.querySelector('#paint canvas').width == 40")
    paint(page)
    fill(page)
    assert page.evaluate("document.querySelectorAll('#filled img')[1].naturalWidth") == 40
    page.close()


def test_two_visitors_get_what_each_asked_for(browser: Any, address: str) -> None:
    pages = [opened(browser, address)[0] for _ in range(2)]
    for seed, page in enumerate(pages):
        paint(page)
        page.get_by_label("seed").first.fill(str(seed))
    for page in pages:
        page.get_by_role("button", name="Fill in what is painted over").click()
    for page in pages:
        page.wait_for_function(SHOWN)
    assert not np.array_equal(read(pages[0], 1), read(pages[1], 1))
    for page in pages:
        page.close()


def test_the_other_tabs_answer(browser: Any, address: str) -> None:
    page, outside = opened(browser, address, 390)
    for tab, button in (("Layers", "Draw this layer anew"), ("Walk", "Walk"), ("Samples", "Draw")):
        page.get_by_role("tab", name=tab).click()
        before = page.locator(".shortrun img").count()
        page.get_by_role("button", name=button, exact=True).locator("visible=true").click()
        page.wait_for_function(f"document.querySelectorAll('.shortrun img').length > {before}")
    page.get_by_role("tab", name="Run").click()
    page.get_by_text("about the run").wait_for()
    assert outside == []
    page.close()
