"""The blocks that stand in for PyTorch's own modules compute what those compute."""

import pytest
import torch
import torch.nn.functional as F

from shortrun.model.blocks import Gelu, Pool


@pytest.mark.parametrize("here", [(4, 4), (8, 8), (7, 9), (3, 12)])
def test_pool_is_an_adaptive_average(here: tuple[int, int]) -> None:
    there = (min(4, here[0]), min(4, here[1]))
    h = torch.randn(2, 3, *here)
    assert torch.allclose(Pool(here, there)(h), F.adaptive_avg_pool2d(h, there).flatten(2), atol=1e-6)
    assert not Pool(here, there).state_dict()


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_gelu_is_the_same_in_every_layout_and_keeps_it(layout: torch.memory_format, dtype: torch.dtype) -> None:
    h = torch.randn(2, 5, 4, 4).to(dtype, memory_format=layout).requires_grad_()
    out = Gelu()(h)
    assert torch.allclose(out, F.gelu(h), atol=1e-6 if dtype == torch.float32 else 0.02)
    assert out.is_contiguous(memory_format=layout)
    slope = torch.autograd.grad(out.sum(), h)[0]
    assert torch.allclose(
        slope, torch.autograd.grad(F.gelu(h).sum(), h)[0], atol=1e-6 if dtype == torch.float32 else 0.02
    )
