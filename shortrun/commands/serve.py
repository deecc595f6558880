"""shortrun serve: a page to play with a model, in a browser."""

import os
import socket
import sys
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import tyro

from shortrun.commands.inputs import ImageArguments, random_numbers, read_given, read_model
from shortrun.commands.parsing import parse
from shortrun.errors import InputError, check_at_least, require_package

if TYPE_CHECKING:
    import torch

    from shortrun.learners import Learner

COMMAND = "shortrun serve"
SHOWN = 100
LOCAL = "127.0.0.1"
LAST_PORT = 65535


@dataclass(frozen=True)
class Serve(ImageArguments):
    """Play with a model in a browser: paint over images, turn a layer, walk between two images, draw new ones.

    Without --n: the first 100 test images, or all of your own. Ctrl-C ends it. Only this machine can open the page,
    unless --host says otherwise; there is no password. Needs pip install 'shortrun[serve]'.
    """

    out: tyro.conf.Suppress[Path | None] = None
    host: str = LOCAL
    """The address to listen at; 0.0.0.0 lets every machine of the network in."""
    port: int = 7860
    """The port to listen at."""
    max_upload: int = 10
    """Megabytes of a visitor's own picture; larger ones are refused."""


ARGUMENTS = (Serve,)


def main(words: list[str]) -> int:
    """Parse, load, serve until Ctrl-C."""
    arguments = parse(Serve, words, COMMAND)
    check_at_least(1, max_upload=arguments.max_upload, port=arguments.port)
    require_package("gradio", "serve")
    check_free(arguments.host, arguments.port)
    learner = read_model(arguments)
    x, name = images(learner, arguments)
    with tempfile.TemporaryDirectory(prefix="shortrun_serve_") as uploads:
        set_offline(uploads, arguments.host)

        from shortrun.pages.play import Play
        from shortrun.pages.playground import build, launch, stop
        from shortrun.pages.report import body
        from shortrun.training.info import found_run

        play = Play(learner, x, name, arguments.noise, arguments.batch_size)
        page = build(play, body(found_run(arguments.run)), arguments.max_upload, arguments.seed, arguments.steps)
        address = launch(page, arguments.host, arguments.port, arguments.max_upload)
        try:
            print(f"open {address} in a browser; Ctrl-C ends", flush=True)
            if arguments.host != LOCAL:
                print("whoever reaches this machine can use the page: there is no password", flush=True)
            threading.Event().wait()
        except KeyboardInterrupt:
            print("stopped")
        finally:
            stop(page)
    return 0


def check_free(host: str, port: int) -> None:
    """Raise InputError where a port is taken, or an address is none of this machine's."""
    if port > LAST_PORT:
        raise InputError("port", port, f"write 1 to {LAST_PORT}")
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, socket.SOCK_STREAM) as tried:
            tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            tried.bind(address)
    except (socket.gaierror, UnicodeError):
        raise InputError("host", repr(host), f"write an address of this machine, {LOCAL} for example") from None
    except OSError as error:
        problem = f"{host}:{port} cannot be had ({error.strerror})"
        raise InputError("port", problem=problem, instead="write another port, or host") from None


def images(learner: "Learner", arguments: Serve) -> "tuple[torch.Tensor, str]":
    """Return the images to play with: those of the run's data, or the model's own where they are not there."""
    try:
        given = read_given(learner, arguments, default=SHOWN)
    except InputError as error:
        if arguments.images is not None or arguments.n is not None or not learner.sources:
            raise
        print(f"{error}; samples of the model stand in for test images", file=sys.stderr)

        from shortrun.tasks import sample

        return sample(learner, SHOWN, random_numbers(arguments.seed), arguments.batch_size), "sample"
    return given.x, given.name


def set_offline(uploads: str, host: str) -> None:
    """Say to the library of the page, before it is imported, to ask nobody outside and where uploads go."""
    os.environ |= {"GRADIO_ANALYTICS_ENABLED": "False", "GRADIO_TEMP_DIR": uploads, "HF_HUB_OFFLINE": "1"}
    # it asks its own server whether it is there, which a proxy would not find
    os.environ["no_proxy"] = ",".join(filter(None, [os.environ.get("no_proxy"), "localhost", LOCAL, host]))
