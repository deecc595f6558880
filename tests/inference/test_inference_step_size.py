import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from shortrun.errors import InputError
from shortrun.inference import StepSize

LATENTS = st.lists(st.integers(1, 4), min_size=1, max_size=5)


@settings(max_examples=60, deadline=None)
@given(LATENTS, st.integers(1, 30), st.floats(0.01, 3), st.floats(0.01, 2), st.booleans(), st.integers(0, 99))
def test_values_decay_geometrically(
    latents: list[int], steps: int, first: float, decay: float, each: bool, seed: int
) -> None:
    values = [first * (1 + i / 7) for i in range(len(latents))] if each else first
    step_size = StepSize(values, latents, decay).double()
    s = step_size(steps)
    assert s.shape == (steps, 1, sum(latents))
    layers = s.split(latents, dim=2)
    for layer, value in zip(layers, values if isinstance(values, list) else [values] * len(latents), strict=True):
        assert (layer == layer[:, :, :1]).all()  # one number for a layer
        along = layer[:, 0, 0].tolist()
        assert along[0] == pytest.approx(value, rel=1e-6)
        if steps > 1:
            assert along[-1] == pytest.approx(value * decay, rel=1e-6)
            ratios = [later / sooner for sooner, later in itertools.pairwise(along)]
            assert ratios == pytest.approx([decay ** (1 / (steps - 1))] * (steps - 1), rel=1e-6)
    assert step_size.values == pytest.approx(values if isinstance(values, list) else [values], rel=1e-6)
    assert step_size.decay == pytest.approx(decay, rel=1e-6)


def test_constant_without_decay() -> None:
    assert (StepSize(0.2, [2, 3])(5) == StepSize(0.2, [2, 3])(5)[0, 0, 0]).all()
    torch.testing.assert_close(StepSize(0.2, [2, 3])(5), torch.full((5, 1, 5), 0.2))


def test_one_for_each_layer_top_down() -> None:
    torch.testing.assert_close(StepSize((0.1, 0.2, 0.3), (1, 2, 1))(1)[0, 0], torch.tensor([0.1, 0.2, 0.2, 0.3]))


@pytest.mark.parametrize("values", [0.4, (0.1, 0.4)])
def test_is_part_of_a_checkpoint_and_not_of_the_weights(values: float | tuple[float, ...]) -> None:
    saved, other = StepSize(values, [2, 3], 0.5), StepSize(values, [2, 3])
    saved.scale_from(values, 0.3)
    other.load_state_dict(saved.state_dict())
    assert torch.equal(other(7), saved(7))
    assert other.values == pytest.approx([0.12] if values == 0.4 else [0.03, 0.12])
    assert list(other.parameters()) == []


def test_scale_is_from_the_values_given_not_from_the_last() -> None:
    step_size = StepSize(0.4, [2])
    for factor in (0.5, 0.25, 1.0):
        step_size.scale_from(0.4, factor)
        assert step_size.values == pytest.approx([0.4 * factor])


@pytest.mark.parametrize(
    ("values", "decay", "message"),
    [
        ((0.1, 0.2), 1.0, "step_size: got 2 values for 3 layers; write one, or one for each layer"),
        ((), 1.0, "step_size: got 0 values for 3 layers"),
        ((0.1,) * 4, 1.0, "step_size: got 4 values for 3 layers"),
        (0.0, 1.0, "step_size: got [0.0]; write positive numbers"),
        (-0.1, 1.0, "step_size: got [-0.1]; write positive numbers"),
        ((0.1, -0.2, 0.1), 1.0, "step_size: got [0.1, -0.2, 0.1]; write positive numbers"),
        (math.nan, 1.0, "step_size: got [nan]"),
        (math.inf, 1.0, "step_size: got [inf]"),
        (0.1, 0.0, "step_decay: got 0.0; write a positive number"),
        (0.1, -1.0, "step_decay: got -1.0"),
        (0.1, math.nan, "step_decay: got nan"),
    ],
)
def test_what_is_no_step_size_is_refused(values: float | tuple[float, ...], decay: float, message: str) -> None:
    with pytest.raises(InputError) as caught:
        StepSize(values, (1, 2, 3), decay)
    assert str(caught.value).startswith(message)
