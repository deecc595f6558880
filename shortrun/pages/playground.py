"""The page to play with a model: tabs around what `Play` does. The one file that imports gradio, and not at its top."""

import functools
import importlib
import logging
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, no_type_check

from shortrun.data.pictures import SUFFIXES
from shortrun.errors import InputError
from shortrun.pages.guard import Guard
from shortrun.pages.html import STYLE, data_uri, escaped, figure, row
from shortrun.pages.play import MOST_COLUMNS, MOST_COMPLETIONS, MOST_SAMPLES, MOST_STEPS, Play, View
from shortrun.pages.uploads import MOST_PIXELS

WAITING = 20
"""Requests that wait for the model; one more is refused."""
THREADS = 8
"""That answer requests; the model itself serves one after the other."""
WIDTH = 140
"""Pixels at which a small image is shown."""
FORM = 2**20
"""Bytes of a request beside the file that it brings."""
MEGABYTE = 2**20
STROKES = "(...values) => { values[2] = window.shortrunStrokes(); return values; }"
"""Run in the browser before a picture is filled in: puts what was painted in place of the third value."""
PAINT = """<div class="sheet"><img src="${value}" alt="the picture to paint over"><canvas></canvas></div>
<div class="tools"><label>brush <input class="brush" type="range" min="1" max="60" value="25"></label>
<label><input class="erase" type="checkbox"> erase</label> <button class="clear" type="button">clear</button></div>"""
PAINT_STYLE = """
.sheet { position: relative; max-width: 100%; }
img { display: block; width: 100%; margin: 0; image-rendering: pixelated; }
canvas { position: absolute; inset: 0; width: 100%; height: 100%; image-rendering: pixelated; touch-action: none;
  cursor: crosshair; }
.tools { display: flex; flex-wrap: wrap; gap: 1rem; align-items: center; margin-top: .5rem; }
.clear { border: 1px solid; border-radius: 4px; padding: .1rem .6rem; font: inherit; }
"""
NARROW = """
@media (max-width: 480px) {
  .tab-container button { padding: 0 .3rem !important; font-size: .9rem !important; }
  .main.fillable { padding: .5rem !important; }
}
"""
"""All tabs are seen on a phone: the library puts those that do not fit into a menu."""


def library() -> Any:
    """Return gradio, which takes seconds to import and may not be there."""
    return importlib.import_module("gradio")


def shown(view: View) -> str:
    """Return a view as HTML.

    view: what a visitor asked for.
    """
    figures = (figure(picture, caption, _width(picture)) for caption, picture in view.pictures)
    words = f"<p>{escaped(view.words)}</p>" if view.words else ""
    return f'<div class="shortrun">{words}{row(figures)}</div>'


def _width(picture: Any) -> int | None:
    """Return the width at which a picture is shown; None for its own, which a grid of images has."""
    return WIDTH if max(picture.size) < WIDTH else None


class Turns:
    """Whose turn it is to use the model: one visitor at a time, stage by stage, and nobody once the server ends."""

    def __init__(self) -> None:
        self.lock, self.ended = threading.Lock(), False

    def __enter__(self) -> None:
        """Wait for the turn."""
        self.lock.acquire()
        if self.ended:
            self.lock.release()
            raise InputError("server", problem="it has ended", instead="start it again")

    def __exit__(self, *error: object) -> None:
        """Let the next one have it."""
        self.lock.release()

    def end(self) -> None:
        """Let the stage that is being computed finish, and none begin."""
        with self.lock:
            self.ended = True


def answering(play: Callable[..., Any], turns: Turns) -> Callable[..., Any]:
    """Return what a tab does as the page calls it: its views as HTML, its refusals as words in a corner.

    play: returns a view, or yields several.
    turns: of all tabs.
    """

    @no_type_check  # a wrapper that checks types would hide from the library that it yields
    @functools.wraps(play)
    def answer(*values: Any) -> Iterator[str]:
        try:
            with turns:
                found = play(*values)
            views = iter([found]) if isinstance(found, View) else found
            while True:
                with turns:
                    view = next(views, None)
                if view is None:
                    return
                yield shown(view)
        except InputError as error:
            raise refusal(error) from None

    return answer


def refusal(error: InputError) -> Exception:
    """Return a refusal as the page shows it: its words are taken for HTML there.

    error: what was not accepted.
    """
    return library().Error(escaped(error), title="Not done", print_exception=False)


def build(play: Play, about: str, max_upload: int, seed: int = 0, steps: int | None = None) -> Any:
    """Return the page.

    play: what its tabs do.
    about: HTML of the last tab.
    max_upload: megabytes of an upload, which the page states.
    seed: that stands in the fields at first.
    steps: K that stands there at first; None for the learner's own.
    """
    gr = library()
    with gr.Blocks(title="shortrun", analytics_enabled=False, delete_cache=(60, 600)) as page:
        turns = page.turns = Turns()
        with gr.Tab("Inpaint"):
            _inpaint(play, turns, max_upload, seed, steps)
        with gr.Tab("Layers"):
            _layers(play, turns, seed)
        with gr.Tab("Walk"):
            _walk(play, turns, seed)
        with gr.Tab("Samples"):
            _samples(play, turns, seed)
        with gr.Tab("Run"):
            gr.HTML(about)
    for each in page.blocks.values():
        if isinstance(each, gr.Slider | gr.Number):
            # `Play` looks at what was chosen or typed; the library's own check prints where it is called
            each.preprocess = lambda payload: payload
    return page


def _inpaint(play: Play, turns: Turns, max_upload: int, seed: int, steps: int | None) -> None:
    gr, learner = library(), play.learner
    with gr.Row():
        with gr.Column(min_width=300):
            number = _number(play, play.name)
            own = gr.File(
                label=f"or your own: {max_upload} MB, {MOST_PIXELS // 10**6} megapixels at most",
                file_types=sorted(SUFFIXES),
                height=150,
            )
            sheet = gr.HTML(
                value=data_uri(play.canvas(1)),
                html_template=PAINT,
                css_template=PAINT_STYLE,
                js_on_load=Path(__file__).with_name("paint.js").read_text(encoding="utf-8"),
                elem_id="paint",
            )
            painted = gr.Textbox(visible=False)
        with gr.Column(min_width=300):
            own_steps = min(MOST_STEPS, steps or getattr(learner, "fresh_steps", 1))
            k = gr.Slider(
                1,
                max(200, own_steps),
                own_steps,
                step=1,
                label="K, Langevin steps",
                visible=learner.has_chain,
            )
            completions = gr.Slider(1, MOST_COMPLETIONS, 8, step=1, label="completions")
            start = gr.Number(seed, label="seed", precision=0)
            button = gr.Button("Fill in what is painted over", variant="primary")
            result = gr.HTML(elem_id="filled")

    def canvas(chosen: Any, upload: str | None) -> str:
        try:
            return data_uri(play.canvas(chosen, upload))
        except InputError as error:
            raise refusal(error) from None

    for event in (number.change, own.change):
        event(canvas, [number, own], sheet, show_progress="hidden", trigger_mode="always_last")
    _answer(button, answering(play.inpaint, turns), [number, own, painted, k, completions, start], result, STROKES)


def _layers(play: Play, turns: Turns, seed: int) -> None:
    gr, number = library(), _number(play, play.name)
    top = len(play.learner.latents)
    with gr.Row():
        layer = gr.Slider(1, max(2, top), top, step=1, label=f"layer: {top} is the top", visible=top > 1)
        columns = gr.Slider(1, MOST_COLUMNS, 16, step=1, label="variations")
        start = gr.Number(seed, label="seed", precision=0)
    button, result = gr.Button("Draw this layer anew", variant="primary"), gr.HTML()
    _answer(button, answering(play.turn, turns), [number, layer, columns, start], result)


def _walk(play: Play, turns: Turns, seed: int) -> None:
    gr = library()
    farthest = int((play.x - play.x[:1]).flatten(1).norm(dim=1).argmax()) + 1
    with gr.Row():
        first, last = _number(play, "from " + play.name), _number(play, "to " + play.name, farthest)
    with gr.Row():
        columns = gr.Slider(2, MOST_COLUMNS, 16, step=1, label="images")
        start = gr.Number(seed, label="seed", precision=0)
    button, result = gr.Button("Walk", variant="primary"), gr.HTML()
    _answer(button, answering(play.walk, turns), [first, last, columns, start], result)


def _samples(play: Play, turns: Turns, seed: int) -> None:
    gr = library()
    names = {"prior": "the prior", "fitted": "the density fitted to latents of training images"}
    sources = [(names[source], source) for source in play.learner.sources]
    with gr.Row():
        count = gr.Slider(1, MOST_SAMPLES, 64, step=1, label="images")
        source = gr.Radio(sources, value=sources[0][1] if sources else None, label="latents from")
        start = gr.Number(seed, label="seed", precision=0)
    button, result = gr.Button("Draw", variant="primary"), gr.HTML()
    _answer(button, answering(play.samples, turns), [count, source, start], result)


def _number(play: Play, label: str, value: int = 1) -> Any:
    gr, n = library(), len(play.x)
    return gr.Slider(1, max(2, n), value, step=1, label=label, interactive=n > 1)


def _answer(button: Any, answer: Callable[..., Any], inputs: list[Any], result: Any, js: str | None = None) -> None:
    """Let a button show what a tab does; all tabs share the model, which serves one visitor after the other."""
    button.click(answer, inputs, result, js=js, concurrency_limit=1, concurrency_id="model", show_progress="minimal")


def launch(page: Any, host: str, port: int, max_upload: int) -> str:
    """Start to serve a page in threads of its own; return its address.

    page: of `build`.
    host: the address to listen at.
    port: free.
    max_upload: megabytes of an upload.
    """
    from starlette.middleware import Middleware  # pyright: ignore[reportMissingImports]

    gr, sans = library(), ["system-ui", "sans-serif"]
    page.queue(max_size=WAITING)
    _, address, _ = page.launch(
        server_name=host,
        server_port=port,
        max_file_size=max_upload * MEGABYTE,
        app_kwargs={"middleware": [Middleware(Guard, most=max_upload * MEGABYTE + FORM, threads=THREADS)]},
        # fonts of the visitor's own: others would be fetched from outside
        theme=gr.themes.Default(font=sans, font_mono=["ui-monospace", "monospace"]),
        css=STYLE + NARROW,
        max_threads=THREADS,
        state_session_capacity=100,
        prevent_thread_lock=True,
        quiet=True,
        share=False,
        inbrowser=False,
        ssr_mode=False,
        pwa=False,
        mcp_server=False,
        enable_monitoring=False,
        run_history=False,
        footer_links=[],
    )
    return address


def stop(page: Any) -> None:
    """End the server of a page within seconds, whatever its visitors are waiting for.

    page: that was launched.
    """
    page.turns.end()
    logging.getLogger("uvicorn.error").disabled = True  # what is cut off now is no error
    page.server.force_exit = True
    page.close(verbose=False)
