"""Latents of images that depend on the image and the seed alone, whatever images lie beside it."""

import torch
from torch import Tensor

from shortrun.errors import check_at_least
from shortrun.inference import DrawnNoise, no_noise, short_run
from shortrun.learners import ChainLearner, Learner, frozen
from shortrun.learners.images import check_images, check_pixels, check_weights
from shortrun.model.likelihood import Images
from shortrun.modes import own_modes, plain
from shortrun.normals import Flat
from shortrun.progress import shown
from shortrun.tasks.batches import BATCH_SIZE


class CommonNoise(DrawnNoise):
    """The noise of chains that all have the same random numbers, each matrix (n, d) one row n times.

    Each chain alone is as with noise of its own. What is made of one image does not change with the others.
    """

    def draw(self) -> Flat:
        """Draw the next row, and give it to all chains."""
        row = torch.randn(1, self.size[1], generator=self.rng, device=self.rng.device)
        return row.expand(self.size).to(self.device)

    def uniform(self) -> Tensor:
        """Draw one number in [0, 1), and give it to all chains."""
        return torch.rand(1, generator=self.rng, device=self.rng.device).expand(self.size[0]).to(self.device)


def infer_alone(
    learner: Learner, x: Images, rng: torch.Generator, draws: int = 1, batch_size: int = BATCH_SIZE
) -> Flat:
    """Return latents of images, (n, d), on the CPU: the mean of the ends of chains with common random numbers.

    A learner without chains gives what its `infer` does. A chain that became non-finite gives its start.

    learner: ready to use.
    x: (n, c, h, w) in [-1, 1], the images.
    rng: gives the random numbers, the same for all images.
    draws: at least 1, chains of each image.
    batch_size: at least 1, images at a time; the latents do not depend on it.

    Raises InputError for images of another shape than the model's, for pixels outside of [-1, 1] and for counts below
    1.

    >>> from shortrun import ModelConfig, ShortRun
    >>> learner = ShortRun.build((1, 4, 4), ModelConfig(latents=(2, 3), width=8))
    >>> x = torch.rand(4, 1, 4, 4)
    >>> one, all_four = (infer_alone(learner, part, torch.Generator().manual_seed(0)) for part in (x[2:3], x))
    >>> bool(torch.allclose(one[0], all_four[2], atol=1e-4))
    True
    """
    check_weights(learner)
    check_images(learner.description, x)
    check_pixels(x)
    check_at_least(1, draws=draws, batch_size=batch_size)
    state, parts = rng.get_state(), []
    for part in shown(x.split(batch_size), "inferring"):
        rng.set_state(state)
        part = plain(part.to(learner.device))
        with own_modes():
            if isinstance(learner, ChainLearner):
                z = torch.stack([chain_ends(learner, part, rng) for _ in range(draws)]).mean(0)
            else:
                z = learner.infer(part, rng).z
        parts.append(z.cpu())
    return torch.cat(parts)


def chain_ends(learner: ChainLearner, x: Images, rng: torch.Generator) -> Flat:
    """Return where chains with common random numbers end, (n, d).

    learner: ready to use.
    x: (n, c, h, w) in [-1, 1], the images.
    rng: gives the random numbers.
    """
    draws = CommonNoise(rng, learner.fresh_steps, (len(x), learner.dim), device=x.device)
    with torch.no_grad(), frozen(learner.generator):
        start = learner.start(x, draws)
        noise = draws if learner.noise else no_noise(len(draws), start.z)
        climbed = learner.log_density(x, start.component)
        z = short_run(climbed, start.z, learner.step_size(len(draws)), noise, learner.step)
        return torch.where(climbed(z).isfinite()[:, None], z, start.z)
