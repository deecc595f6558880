"""A measured number as a record, and as files hold it."""

import json

import pytest

from shortrun.metrics.figure import Figure, from_json, to_json

FIGURES = [
    Figure("mse", 0.1, group="reconstructions", conditions={"images": 9, "step_size": [0.1, 0.2]}),
    Figure("psnr", 12.5, unit="dB", group="reconstructions", note="a mean of ratios"),
    Figure("nats", -3.0, conditions={"by": "hand"}, own={"standard_error": None, "chances": [1, None]}),
    Figure("failed", 0),
    Figure("ssim", left_out="too small", group="reconstructions"),
]


def test_what_is_written_is_read_back() -> None:
    file = json.loads(json.dumps(to_json(FIGURES)))
    assert from_json(file) == {figure.name: figure for figure in FIGURES}


def test_the_layout_of_files_is_flat() -> None:
    file = to_json(FIGURES)
    assert file["mse"] == {"value": 0.1, "images": 9, "step_size": [0.1, 0.2], "group": "reconstructions"}
    assert file["failed"] == {"value": 0}
    assert file["ssim"] == {"left_out": "too small", "group": "reconstructions"}
    assert file["nats"]["chances"] == [1, None]


def test_files_from_before_are_read() -> None:
    """Without group and own, flat ones of the experiments, and with what is no figure beside the figures."""
    found = from_json(
        {
            "mse": {"value": 0.1, "layers": [1, 2], "standard_error": 0.5, "images": 9, "unit": "dB"},
            "psnr": {"left_out": "why"},
            "fid": 7.5,
            "failed": 3,
            "training": {"seconds": 4},
            "date": "today",
            "latent_density": None,
            "noise": True,
        }
    )
    assert found == {
        "mse": Figure("mse", 0.1, unit="dB", conditions={"images": 9}, own={"layers": [1, 2], "standard_error": 0.5}),
        "psnr": Figure("psnr", left_out="why"),
        "fid": Figure("fid", 7.5),
        "failed": Figure("failed", 3),
    }
    assert found["mse"].standard_error == 0.5
    assert found["fid"].standard_error is None


def test_conditions_are_added_to_what_is_measured() -> None:
    more = {"images": 9, "steps": 5}
    assert Figure("a", 1, conditions={"images": 8}).under(more) == Figure("a", 1, conditions=more)
    assert Figure("b", left_out="why").under(more) == Figure("b", left_out="why")
    with pytest.raises(AttributeError):
        Figure("a", 1).value = 2  # type: ignore[misc]
