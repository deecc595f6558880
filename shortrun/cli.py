"""The command line: a table of commands, each imported only when it is called."""

import importlib
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from shortrun.errors import InputError, LostProcess, cut, did_you_mean
from shortrun.interruption import stoppable
from shortrun.version import __version__

COMMANDS = {
    "train": "learn a model from images, or go on with an interrupted run",
    "sample": "draw new images",
    "reconstruct": "infer the latents of images and decode them",
    "inpaint": "fill in missing pixels, several times over, with a map of uncertainty",
    "restore": "remove noise or blur from images, or enlarge them, with a map of uncertainty",
    "encode": "write the latents of images to a .npz file",
    "score": "say how unlike the images of training each image is",
    "interpolate": "walk from one image to another through the latents",
    "traverse": "vary one layer of latents and hold the others",
    "tune": "the step size that variational optimization chooses, with its curves",
    "diagnose": "say whether the inference is good, and what to change",
    "evaluate": "measure a learned model: errors, distances, log p(x), latents",
    "compare": "train and evaluate several learners side by side: VAE, Ladder VAE, ...",
    "experiment": "repeat an experiment of the paper, or one of our own",
    "export": "write the decoder to an ONNX file, or a program of torch.export",
    "info": "say what a run is and what it reached",
    "report": "write a run as one HTML file: settings, curves, pictures, figures, diagnosis",
    "serve": "play with a model in a browser: paint, fill in, turn layers, walk, sample",
}


def usage() -> str:
    """Return the help of the whole program."""
    width = max(map(len, COMMANDS))
    rows = "\n".join(f"  {name:<{width}}  {words}" for name, words in COMMANDS.items())
    return (
        "usage: shortrun COMMAND [OPTIONS]\n\n"
        "Multi-layer latent variable models of images without an encoder.\n\n"
        f"commands:\n{rows}\n\n"
        "shortrun COMMAND --help says more; shortrun train digits is a good start.\n"
        "options:\n  -h, --help  show this help\n  --version   show the version\n"
    )


def main(arguments: list[str] | None = None) -> int:
    """Run a command; return its exit code.

    0, or 2 for input that cannot be used, 130 after Ctrl-C and the signals that ask a program to stop, 1 where another
    of several processes is lost.
    """
    words = sys.argv[1:] if arguments is None else arguments
    try:
        with stoppable(last=arguments is None):
            return run(words)
    except KeyboardInterrupt:  # once more, while the first was being answered
        return 130
    except BrokenPipeError:
        # whoever read the output, `head` for example, has enough of it; at its end Python would flush it once more
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141  # as a program that SIGPIPE ends


def run(words: list[str]) -> int:
    """Run a command with its output flushed; return its exit code."""
    try:
        return command(words)
    finally:
        sys.stdout.flush()


def command(words: list[str]) -> int:
    """Run a command and say in one line why it did not end well; return its exit code."""
    if not words or words[0] in ("-h", "--help"):
        print(usage(), end="")
        return 0 if words else 2
    if words[0] == "--version":
        print(f"shortrun {__version__}")
        return 0
    try:
        with first_reason():
            if words[0] not in COMMANDS:
                raise InputError("command", repr(words[0]), did_you_mean(words[0], COMMANDS))
            return importlib.import_module(f"shortrun.commands.{words[0]}").main(words[1:])
    except InputError as error:
        if speaks(error):
            print(f"shortrun: error: {error.said_of(option(words[0], error.argument))}", file=sys.stderr)
        return 2
    except LostProcess as error:
        if speaks(error):
            print(f"shortrun: error: {error}", file=sys.stderr)
        return error.code
    except BrokenPipeError:
        raise
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        print(cut(f"shortrun: error: {where}{error.strerror or error}"), file=sys.stderr)
        return 2
    except KeyboardInterrupt as stopped:
        if speaks(stopped):
            print(f"shortrun: {str(stopped) or 'stopped; the same command begins anew'}", file=sys.stderr)
        return 130


@contextmanager
def first_reason() -> Iterator[None]:
    """Raise the error that ends the block also where a signal came on its way: torchrun sends one when another ends."""
    try:
        yield
    except KeyboardInterrupt as stopped:
        before = stopped.__context__
        while before is not None and not isinstance(before, InputError | LostProcess):
            before = before.__context__
        raise before or stopped from None


def speaks(error: BaseException) -> bool:
    """Say whether this process prints an error: of those that torchrun started one does, or one on each machine.

    The others wait a moment, since torchrun ends all processes as soon as one has ended.
    """
    silent = getattr(error, "silent", None)
    if silent is None:
        silent = os.environ.get("LOCAL_RANK", "0") != "0"
    if silent:
        with suppress(KeyboardInterrupt):
            time.sleep(2)
    return not silent


def option(command: str, argument: str) -> str:
    """Return a command's option for an argument, or the argument's own name where it is no option of the command."""
    if command not in COMMANDS:
        return argument
    from shortrun.commands.options import option_names

    arguments = importlib.import_module(f"shortrun.commands.{command}").ARGUMENTS
    if argument.startswith("own."):  # settings that the learner declares: no command knows them
        return f"--{argument.replace('_', '-')}"
    return option_names(arguments).get(argument, argument)


if __name__ == "__main__":
    sys.exit(main())
