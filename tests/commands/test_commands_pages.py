"""shortrun report and shortrun serve on the command line."""

import socket
from collections.abc import Callable
from pathlib import Path

import pytest

import shortrun.errors

Call = Callable[..., tuple[int, str, str]]


def test_a_report_is_written_and_written_again(call: Call, run: Path) -> None:
    for _ in range(2):
        code, out, err = call("report", run)
        assert (code, err) == (0, "")
        assert out == f"wrote {run / 'report.html'}\n"
    assert [path.name for path in run.glob("*.html")] == ["report.html"]


def test_a_report_takes_the_place_of_no_other_file(call: Call, run: Path, tmp_path: Path) -> None:
    own = tmp_path / "own.html"
    own.write_text("<p>mine</p>")
    code, _, err = call("report", run, "--out", own)
    assert code == 2
    assert "own.html is there and not from shortrun report" in err
    assert own.read_text() == "<p>mine</p>"
    assert call("report", run, "--out", tmp_path)[0] == 2
    assert call("report", run, "--out", own / "deeper" / "a.html")[0] == 2
    assert call("report", tmp_path / "none")[0] == 2


def test_a_report_of_a_model_in_the_package_lies_elsewhere(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert call("report", "pretrained:digits") == (0, "wrote runs/pretrained_digits/report.html\n", "")


def test_without_its_library_the_page_says_what_to_install(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shortrun.errors, "installed", lambda package: False)
    code, _, err = call("serve", "pretrained:digits")
    assert (code, err) == (2, "shortrun: error: gradio: not installed; pip install 'shortrun[serve]'\n")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--port", "70000"), "--port: got 70000; write 1 to 65535"),
        (("--port", "0"), "--port: got 0; write a whole number of at least 1"),
        (("--host", "nowhere.invalid"), "--host: got 'nowhere.invalid'"),
        (("--max-upload", "0"), "--max-upload: got 0"),
        (("--out", "x"), "--out: no such option"),
    ],
)
def test_addresses_that_there_are_not(
    words: tuple[str, ...], said: str, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shortrun.errors, "installed", lambda package: True)
    code, _, err = call("serve", "pretrained:digits", *words)
    assert code == 2
    assert said in err
    assert len(err.splitlines()) == 1


def test_a_port_in_use_is_one_line(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shortrun.errors, "installed", lambda package: True)
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        code, _, err = call("serve", "pretrained:digits", "--port", port)
    assert code == 2
    assert f"--port: 127.0.0.1:{port} cannot be had" in err
    assert len(err.splitlines()) == 1


def test_samples_stand_in_where_a_run_has_no_images(call: Call, run: Path) -> None:
    from shortrun.commands.inputs import read_model
    from shortrun.commands.serve import Serve, images

    arguments = Serve(run / "checkpoint")
    x, name = images(read_model(arguments), arguments)
    assert (name, len(x)) == ("sample", 100)
    arguments = Serve(run, n=7)
    x, name = images(read_model(arguments), arguments)
    assert (name, len(x)) == ("test image", 7)
