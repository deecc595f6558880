"""How far generated images are from real ones as a set: the Frechet distance between Gaussians fitted to features."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from shortrun.errors import InputError, check_at_least, require_package
from shortrun.metrics.feature_matrix import check_sets, device_of


class _AsMeasured(nn.Module):
    """A feature module as torchmetrics needs it.

    It calls a module without `num_features` with a random uint8 image to learn it, and returns the distance in the
    features' own precision, where float32 loses the small ones: here are float64 features, on the CPU.
    """

    def __init__(self, features: nn.Module, num_features: int, device: torch.device) -> None:
        super().__init__()
        self.features, self.num_features, self.device = features, num_features, device

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d"]:
        return self.features(x.to(self.device)).double().cpu()


@torch.no_grad()
def frechet_distance(
    features: nn.Module, real: Float[Tensor, "n c h w"], made: Float[Tensor, "m _ _ _"], batch_size: int = 500
) -> float:
    """Return the Frechet distance between two sets of images, 0 for equal means and covariances of their features.

        |m_r - m_g|^2 + tr(C_r + C_g - 2 (C_r C_g)^(1/2))

    Finite sets bias it upwards, so quote both n, and compare only equal n and the same features. Needs the extra
    shortrun[metrics].

    features: a module in evaluation mode, (n, c, h, w) -> (n, d) row by row: `own_features(dataset)`, or the user's
        own.
    real: (n, c, h, w) in [-1, 1], at least two images, test images as a rule.
    made: (m, c, h, w) in [-1, 1], at least two images, generated ones.
    batch_size: at least 1, images at a time.

    Raises InputError without the extra, for fewer than two images, for images of unlike shapes, and where features are
    not finite.

    >>> x = torch.rand(20, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    >>> round(frechet_distance(nn.Flatten(), x, x - 1), 3)
    4.0

    Source: Heusel et al., "GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash Equilibrium", 2017,
    arXiv 1706.08500.
    """
    require_package("torchmetrics", "metrics")
    from torchmetrics.image.fid import FrechetInceptionDistance

    check_sets(real, made)
    check_at_least(1, batch_size=batch_size)
    device = device_of(features)
    size = features(real[:1].to(device)).shape[-1]
    # Each process of several measures its own images: without the argument the sums of all would be added up.
    measure = FrechetInceptionDistance(_AsMeasured(features, size, device), sync_on_compute=False)
    for images, is_real in ((real, True), (made, False)):
        for part in images.split(batch_size):
            measure.update(part, real=is_real)
    for name, total in (("real", measure.real_features_sum), ("made", measure.fake_features_sum)):
        if not torch.isfinite(total).all():
            raise InputError(name, problem="some features are not finite", instead="leave out images that are not")
    # The eigenvalues of a product of covariances are found up to rounding: equal sets can give -1e-14.
    return max(float(measure.compute()), 0.0)
