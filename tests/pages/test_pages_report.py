"""A run as one page: nothing outside of it is asked for, nothing in it is taken for HTML, what is there is shown."""

import base64
import json
import shutil
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image

from shortrun.errors import InputError
from shortrun.pages.curves import draw_curve, read_curves
from shortrun.pages.html import escaped
from shortrun.pages.report import report

BEFORE = Path(__file__).parents[1] / "runs_before"
HOSTILE = ["<script>alert(1)</script>", '"><img src=x onerror=alert(2)>', "</pre></details>", "\x00\u202e", "\ud800"]


class Reader(HTMLParser):
    """Collects what a browser would see of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.handlers: list[str] = []
        self.words = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "data", "action")]
        self.handlers += [name for name, _ in attrs if name.startswith("on")]

    def handle_data(self, data: str) -> None:
        self.words += data


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return Path(shutil.copytree(BEFORE / "finished", tmp_path / "run"))


def pictures(page: str) -> list[Image.Image]:
    links = Reader(page).links
    return [Image.open(BytesIO(base64.b64decode(link.removeprefix("data:image/png;base64,")))) for link in links]


def test_a_page_asks_nothing_outside_of_it(run: Path) -> None:
    page = report(run)
    seen = Reader(page)
    assert len(seen.links) > 4
    assert all(link.startswith("data:image/png;base64,") for link in seen.links)
    assert not {"script", "link", "iframe", "form"} & set(seen.tags)
    assert "url(" not in page
    assert "@import" not in page
    assert "default-src 'none'" in page
    assert 'name="viewport" content="width=device-width' in page


def test_a_finished_run_is_shown_whole(run: Path) -> None:
    page = report(run)
    words = Reader(page).words
    for expected in (
        "reconstruction error",
        "mse in files",
        "finished",
        "loss",
        "[inference]",
        "samples from the prior",
    ):
        assert expected in words, expected
    curves = len(read_curves(run / "metrics.jsonl").values)
    samples, *charts = pictures(page)
    assert samples.tobytes() == Image.open(run / "figures" / "samples.png").convert(samples.mode).tobytes()
    assert 3 < len(charts) < curves, "what is the same all along is said in words"
    assert "The same all along: " in words
    assert "Diagnosis" not in words


def test_an_interrupted_run_says_how_far_it_is() -> None:
    words = Reader(report(BEFORE / "interrupted")).words
    assert "not finished" in words
    assert "epoch 0004" in words


def test_a_model_that_the_package_brings_along() -> None:
    words = Reader(report("pretrained:digits")).words
    assert "reconstruction error" in words
    assert "Curves" not in words


@pytest.mark.parametrize("hostile", HOSTILE)
def test_what_a_run_says_is_never_html(run: Path, hostile: str) -> None:
    plain = Reader(report(run))
    origin = {"classes": [hostile, "b"], "images": {}}
    (run / "origin.json").write_text(json.dumps(origin))
    result = json.loads((run / "result.json").read_text())
    (run / "result.json").write_text(
        json.dumps({**result, "warning": hostile, hostile: {"value": 1.0, "split": hostile}})
    )
    with (run / "metrics.jsonl").open("a") as file:
        file.writelines(json.dumps({"step": step, hostile: step}) + "\n" for step in (1, 2))
    (run / "config.toml").write_text((run / "config.toml").read_text() + f"# {hostile!r}\n")
    named = run.rename(run.parent / hostile.replace("/", "|").replace("\x00", "").encode("utf-8", "replace").decode())
    page = report(named)
    page.encode("utf-8")
    seen = Reader(page)
    assert seen.handlers == []
    assert seen.tags.count("img") == plain.tags.count("img") + 1
    assert seen.tags.count("section") == plain.tags.count("section")
    assert not {"script", "b"} & set(seen.tags)
    assert escaped(hostile) in page


def test_what_is_damaged_is_said_and_the_rest_is_shown(run: Path) -> None:
    (run / "result.json").write_text("{")
    (run / "figures" / "samples.png").write_bytes(b"%PDF")
    (run / "checkpoint" / "model.safetensors").write_bytes(b"")
    lines = (run / "metrics.jsonl").read_text().splitlines()
    broken = ["no json", "[]", '{"loss": 1}', '{"step": 1, "loss": 1' + "0" * 400 + "}", "[" * 100_000]
    (run / "metrics.jsonl").write_text("\n".join([*broken, *lines, '{"step": 99, "loss": null, "mse": NaN}', '{"st']))
    words = Reader(report(run)).words
    assert words.count("damaged") >= 4
    assert f"{len(broken) + 1} lines of metrics.jsonl are damaged and left out" in words
    assert "digits" in words
    assert "8 epochs" in words
    assert "loss" in words


def test_damaged_settings_leave_the_rest(run: Path) -> None:
    (run / "config.toml").write_bytes(b"\xff[data")
    words = Reader(report(run)).words
    assert "reconstruction error" in words
    assert "loss" in words


def test_a_diagnosis_is_shown(run: Path) -> None:
    folder = run / "diagnose"
    folder.mkdir()
    findings = [
        {"subject": "chains", "well": True, "words": "all are finite", "change": ""},
        {"subject": "length", "well": False, "words": "K is <too> small", "change": "--inference.steps 56"},
    ]
    conditions = {"images": 16, "split": "test", "steps": 8, "date": "2026-01-01"}
    (folder / "diagnosis.json").write_text(json.dumps({"findings": findings, "conditions": conditions}))
    Image.new("RGB", (40, 30)).save(folder / "diagnosis.png")
    words = Reader(report(run)).words
    for expected in (
        "verdict: 1 of 2 findings are not well",
        "change first, and train again: --inference.steps 56",
        "measured on 16 test images with K = 8, 2026-01-01",
        "not well: K is <too> small",
        "the diagnosis in charts",
    ):
        assert expected in words, expected
    (folder / "diagnosis.json").write_text('{"findings": [{}]}')
    assert "damaged" in Reader(report(run)).words


def test_a_link_to_another_file_does_not_get_into_the_page(run: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("what is nobody's business")
    picture = run / "figures" / "samples.png"
    picture.unlink()
    picture.symlink_to(tmp_path / "secret")
    page = report(run)
    assert "business" not in page
    assert base64.b64encode(b"what is nobody's").decode()[:20] not in page


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not a run"):
        report(tmp_path)


def test_a_curve_of_many_points_and_of_one(tmp_path: Path) -> None:
    assert draw_curve([(1.0, 2.0)]).width > 100
    assert draw_curve([(float(i), float(i % 7)) for i in range(5000)]).width > 100
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps({"step": 1, f"a{i}": i}) + "\n" for i in range(100)))
    assert len(read_curves(tmp_path / "metrics.jsonl").values) == 24
