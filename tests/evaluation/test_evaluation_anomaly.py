"""Scores of strangeness against closed forms of a linear generator in float64."""

import math

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import MultivariateNormal

from shortrun import InputError, ModelConfig, ShortRun, Vae, anomaly_scores
from shortrun.evaluation.anomaly import SCORES, available, describe_chains
from shortrun.learners import EncoderLearner, Inferred, LadderVae, Rae
from shortrun.learners.encoder import Proposal
from shortrun.model import Gaussian, TopDown

LATENTS, PIXELS, SIGMA = (1, 2), 6, 0.3
SHAPE = (1, 2, 3)


def numbers(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Linear(nn.Module):
    """x = W z in float64."""

    def __init__(self) -> None:
        super().__init__()
        weight = 0.2 * torch.randn(PIXELS, sum(LATENTS), generator=numbers(3), dtype=torch.float64)
        self.weight = nn.Parameter(weight)

    def forward(self, *z: Tensor) -> Tensor:
        return (torch.cat(z, 1) @ self.weight.T).view(-1, *SHAPE)


def generator() -> TopDown:
    likelihood = Gaussian(SIGMA).double()
    likelihood.log_sigma.fill_(math.log(SIGMA))
    return TopDown(Linear(), likelihood, LATENTS)


def posterior(x: Tensor) -> MultivariateNormal:
    weight = Linear().weight.detach()
    precision = torch.eye(3, dtype=torch.float64) + weight.T @ weight / SIGMA**2
    mean = torch.linalg.solve(precision, weight.T @ x.flatten(1).T / SIGMA**2).T
    return MultivariateNormal(mean, precision_matrix=precision.expand(len(x), -1, -1))


class Exact(ShortRun):
    """Chains that end at draws from the posterior."""

    def infer(self, x: Tensor, rng: torch.Generator, **_: object) -> Inferred:  # type: ignore[override]
        at = posterior(x)
        noise = torch.randn(len(x), 3, generator=rng, dtype=torch.float64)
        return Inferred(at.mean + (at.scale_tril @ noise[..., None])[..., 0], torch.zeros(len(x), dtype=torch.bool), 0)


class ExactEncoder(EncoderLearner):
    """An encoder whose q(z | x) is the posterior."""

    def propose(self, x: Tensor, rng: torch.Generator) -> Proposal:
        at, noise = posterior(x), torch.randn(len(x), 3, generator=rng, dtype=torch.float64)
        z = at.mean + (at.scale_tril @ noise[..., None])[..., 0]
        return Proposal(z, at.log_prob(z))


def images(n: int, seed: int = 1) -> Tensor:
    return torch.rand(n, *SHAPE, generator=numbers(seed), dtype=torch.float64) * 2 - 1


def log_p(x: Tensor) -> Tensor:
    weight = Linear().weight.detach()
    whole = weight @ weight.T + SIGMA**2 * torch.eye(PIXELS, dtype=torch.float64)
    return MultivariateNormal(torch.zeros(PIXELS, dtype=torch.float64), whole).log_prob(x.flatten(1))


def test_the_bound_is_log_p_where_the_proposal_is_the_posterior() -> None:
    x = images(20)
    for learner in (Exact(generator()), ExactEncoder(generator(), nn.Identity())):
        found = anomaly_scores(learner, x, numbers(), ["bound"], importance_samples=3)
        torch.testing.assert_close(found.scores["bound"], -log_p(x), atol=1e-6, rtol=1e-6)


def test_scores_of_latents_have_the_means_of_the_posterior() -> None:
    """E log p(x, z) = log p(x) - H(z | x), and E |z|^2 and E |x - W z|^2 of a normal posterior."""
    x, learner = images(4), Exact(generator())
    rows = anomaly_scores(learner, x.repeat(1500, 1, 1, 1), numbers(), chains=2, batch_size=3000).scores
    found, at = {name: each.view(1500, 4).mean(0) for name, each in rows.items()}, posterior(x)
    torch.testing.assert_close(found["joint"], at.entropy() - log_p(x), atol=0.1, rtol=0)
    square = at.mean.square().sum(1) + at.covariance_matrix.diagonal(dim1=1, dim2=2).sum(1)
    torch.testing.assert_close(found["prior"], 0.5 * square + 1.5 * math.log(2 * math.pi), atol=0.06, rtol=0)
    weight = Linear().weight.detach()
    off = (x.flatten(1) - at.mean @ weight.T).square().sum(1)
    off = off + (weight @ at.covariance_matrix @ weight.T).diagonal(dim1=1, dim2=2).sum(1)
    torch.testing.assert_close(found["error"], off / PIXELS / 4, atol=2e-3, rtol=0)


def test_larger_is_stranger_by_every_score() -> None:
    """Images of the model against those that are far from the range of W, and against latents far out."""
    learner, weight = Exact(generator()), Linear().weight.detach()
    z = torch.randn(200, 3, generator=numbers(7), dtype=torch.float64)
    usual = (z @ weight.T + SIGMA * torch.randn(200, PIXELS, generator=numbers(8), dtype=torch.float64)).clamp(-1, 1)
    basis = torch.linalg.svd(weight).U
    off = 0.9 * basis[:, 5].sign().expand(200, -1)
    out = (9 * z / z.norm(dim=1, keepdim=True) @ weight.T).clamp(-1, 1)
    for strange, names in ((off, ("joint", "error", "bound")), (out, ("prior",))):
        x = torch.cat([usual, strange]).view(-1, *SHAPE)
        found = anomaly_scores(learner, x, numbers(), list(SCORES), importance_samples=5).scores
        assert list(found) == list(SCORES)
        for name in names:
            assert found[name][200:].mean() > found[name][:200].mean()


def test_averaging_chains_narrows_a_score() -> None:
    x, learner = images(1).expand(300, -1, -1, -1), Exact(generator())
    one, many = (anomaly_scores(learner, x, numbers(), chains=chains).scores["joint"] for chains in (1, 16))
    assert float(many.std()) == pytest.approx(float(one.std()) / 4, rel=0.25)


def test_each_learner_has_its_scores() -> None:
    x, model = torch.zeros(3, 1, 4, 4), ModelConfig(latents=(2, 3), width=8)
    conditional = ModelConfig(latents=(2, 3), width=8, parameterization="conditional")
    for learner in (
        ShortRun.build((1, 4, 4), model),
        Vae.build((1, 4, 4), model),
        LadderVae.build((1, 4, 4), conditional),
    ):
        assert available(learner) == tuple(SCORES)
        found = anomaly_scores(learner, x, numbers(), ["bound", "joint"], importance_samples=2).scores
        assert list(found) == ["bound", "joint"]
        assert all(each.dtype == torch.float64 and each.isfinite().all() for each in found.values())
    rae = Rae.build((1, 4, 4), model)
    assert available(rae) == ("error",)
    assert set(anomaly_scores(rae, x, numbers()).scores) == {"error"}
    with pytest.raises(InputError, match="by: got 'joint'; rae has error"):
        anomaly_scores(rae, x, numbers(), ["joint"])


def test_an_encoder_draws_unless_noise_is_off() -> None:
    learner, x = Vae.build((1, 4, 4), ModelConfig(latents=(2,), width=8)), torch.zeros(1, 1, 4, 4)
    draws = [float(anomaly_scores(learner, x, numbers(seed)).scores["prior"]) for seed in (0, 1)]
    means = [float(anomaly_scores(learner, x, numbers(seed), noise=False).scores["prior"]) for seed in (0, 1)]
    assert draws[0] != draws[1]
    assert means[0] == means[1]
    assert describe_chains(learner, 4) == "mean of 4 times a draw from the encoder"
    assert describe_chains(learner, 4, noise=False) == "mean of the encoder"


def test_a_flow_has_its_density_alone() -> None:
    pytest.importorskip("normflows")
    from shortrun.learners.glow import Glow

    class Known(Glow):
        def __init__(self) -> None:
            nn.Module.__init__(self)
            self.weight, self.description = nn.Parameter(torch.zeros(1)), None

        @property
        def bin_width(self) -> float:
            return 0.0

        def log_prob(self, x: Tensor) -> Tensor:
            return -x.square().flatten(1).sum(1)

    x = torch.linspace(-1, 1, 5)[:, None, None, None]
    found = anomaly_scores(Known(), x, numbers())
    torch.testing.assert_close(found.scores, {"bound": x.flatten().square().double()})
    assert not found.failed.any()


def test_a_chain_that_failed_is_said_and_a_density_that_is_not_finite_is_the_strangest() -> None:
    learner, x = ShortRun.build((1, 4, 4), ModelConfig(latents=(2, 3), width=8)), torch.zeros(3, 1, 4, 4)
    learner.step_size.log_values.fill_(80)
    found = anomaly_scores(learner, x, numbers())
    assert found.failed.all()
    assert all(each.isfinite().all() for each in found.scores.values())

    class Broken(Exact):
        def infer(self, x: Tensor, rng: torch.Generator, **_: object) -> Inferred:  # type: ignore[override]
            found = super().infer(x, rng)
            return found._replace(z=torch.where(torch.arange(len(x))[:, None] == 1, torch.nan, found.z))

    scores = anomaly_scores(Broken(generator()), images(3), numbers()).scores["joint"]
    assert scores.isinf().tolist() == [False, True, False]


@pytest.mark.parametrize(
    ("x", "more", "words"),
    [
        (torch.zeros(0, 1, 4, 4), {}, "x: got an array"),
        (torch.zeros(2, 1, 4, 5), {}, "x: got images of 1x4x5"),
        (torch.full((2, 1, 4, 4), torch.nan), {}, "x: got pixels that are not finite"),
        (torch.full((2, 1, 4, 4), 2.0), {}, "x: got pixels from 2"),
        (torch.zeros(2, 1, 4, 4), {"chains": 0}, "chains: got 0"),
        (torch.zeros(2, 1, 4, 4), {"importance_samples": 0}, "importance_samples: got 0"),
        (torch.zeros(2, 1, 4, 4), {"by": ["likelihood"]}, "by: got 'likelihood'; write some of joint"),
        (torch.zeros(2, 1, 4, 4), {"by": []}, "by: names no score"),
    ],
)
def test_what_cannot_be_scored_is_refused(x: Tensor, more: dict[str, object], words: str) -> None:
    learner = ShortRun.build((1, 4, 4), ModelConfig(latents=(2, 3), width=8))
    with pytest.raises(InputError, match=words):
        anomaly_scores(learner, x, numbers(), **more)  # type: ignore[arg-type]
