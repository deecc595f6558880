"""What an update knows of images with hidden pixels, and how it completes them."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from shortrun.model import Likelihood
from shortrun.model.likelihood import Images, Mask


class Incomplete(NamedTuple):
    """What an update knows of images with hidden pixels."""

    mask: Mask
    """(n, 1, h, w), 1 = observed."""
    rng: torch.Generator
    """Gives the numbers of draws that complete the images."""
    part: tuple[int, int] = (0, 1)
    """(i, m), these images are the i-th of m equal parts of a batch."""


@torch.no_grad()
def completed(
    x: Images,
    likelihood: Likelihood,
    decoded: Float[Tensor, "m ..."],
    sound: Bool[Tensor, "n"],
    incomplete: Incomplete,
) -> Images:
    """Return images with draws x_h ~ p(x_h | z) at their hidden pixels; those whose chains failed as they are.

    The regression is to learn from whole images: the mean of x_h would say that hidden pixels vary less, and so say
    more of the latents, than they do.

    x: (n, c, h, w) in [-1, 1], the images; what they hold at hidden pixels is not looked at.
    likelihood: p(x | z).
    decoded: (m, ...), what the decoder says of the latents of the images whose chains are sound.
    sound: (n,), which these are.
    incomplete: what is hidden of the images.

    Source: Tanner and Wong, "The calculation of posterior distributions by data augmentation", 1987, Journal of the
    American Statistical Association 82(398).
    """
    (index, count), n = incomplete.part, len(x)
    whole = decoded.new_zeros(n, *decoded.shape[1:], dtype=torch.float32)
    whole[sound] = decoded.float()
    # the numbers of the whole batch are drawn and those of this part are kept, as those of chains are
    drawn = likelihood.sample(whole.repeat(count, *[1] * (whole.ndim - 1)), incomplete.rng)
    seen = (incomplete.mask > 0.5) | ~sound[:, None, None, None]
    return torch.where(seen, x, drawn[index * n : (index + 1) * n].to(x))
