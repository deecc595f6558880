"""The fitted density of the latents, and chains that start from a learned prior."""

import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from shortrun.config import InferenceConfig, ModelConfig
from shortrun.errors import InputError
from shortrun.learners import ShortRun
from shortrun.learners.latent_density import FILE, LatentDensity, fit_latent_density, read_density, write_density
from shortrun.model import Normal
from shortrun.normals import inverses

SHAPE = (1, 4, 4)


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def clusters(n: int, count: int, d: int = 4) -> Tensor:
    """Latents of `count` clusters far apart, each of a covariance of its own."""
    means = 8 * torch.randn(count, d, generator=rng(1))
    mixing = 0.7 * torch.randn(count, d, d, generator=rng(2)) / d**0.5
    which = torch.randint(count, (n,), generator=rng(3))
    return means[which] + torch.einsum("nij,nj->ni", mixing[which], torch.randn(n, d, generator=rng(4)))


@pytest.mark.parametrize("count", [1, 3, 6])
def test_the_size_is_the_one_that_foretells_held_out_latents(count: int) -> None:
    z = clusters(1200, count)
    fitted = fit_latent_density(z, rng(), sizes=range(1, 11))
    record = fitted.record
    assert (record.components, record.covariance) == (count, "full")
    assert (record.images, record.held_out_images) == (1200, 240)
    assert record.better_than_prior
    assert record.nats == max(found.nats for found in record.candidates)
    full = [found.components for found in record.candidates if found.covariance == "full"]
    assert full == list(range(1, len(full) + 1))
    assert len(full) < 10, "the search did not end early"
    new = clusters(2400, count)[1200:]
    assert float(fitted.mixture.log_prob(new).mean()) == pytest.approx(record.nats, abs=0.3)


def test_the_fit_repeats_itself_and_leaves_the_global_state_alone() -> None:
    z, before = clusters(200, 2), torch.random.get_rng_state()
    one, again = (fit_latent_density(z, rng()) for _ in range(2))
    assert one.record == again.record
    assert all(torch.equal(one.mixture.state_dict()[name], again.mixture.state_dict()[name]) for name in ("means",))
    assert torch.equal(before, torch.random.get_rng_state())


def test_few_images_get_diagonal_covariances_and_what_is_worse_than_the_prior_is_said() -> None:
    z = torch.randn(30, 16, generator=rng())
    record = fit_latent_density(z, rng()).record
    assert record.covariance == "diag"
    assert {found.covariance for found in record.candidates} == {"diag"}
    assert not record.better_than_prior
    assert record.prior_nats is not None
    assert record.gain == record.nats - record.prior_nats < 0
    assert fit_latent_density(torch.randn(33, 16, generator=rng()), rng()).record.candidates[0].covariance == "full"


def test_the_prior_compared_with_is_the_models_own() -> None:
    z = clusters(100, 2)
    other = fit_latent_density(z, rng(), log_prior=lambda z: torch.full((len(z),), 7.0)).record
    assert other.prior_nats == 7


def test_latents_all_alike_do_no_harm() -> None:
    fitted = fit_latent_density(torch.ones(40, 3), rng())
    assert torch.isfinite(fitted.mixture.log_prob(torch.ones(2, 3))).all()


@pytest.mark.parametrize(
    ("z", "more", "message"),
    [
        (torch.zeros(9, 2), {}, "z: got latents of 9 images"),
        (torch.full((20, 2), torch.nan), {}, "z: some latents are not finite"),
        (torch.zeros(20, 2), {"sizes": ()}, "sizes: got"),
        (torch.zeros(20, 2), {"sizes": (2, 1)}, "sizes: got"),
        (torch.zeros(20, 2), {"held_out": 1.0}, "held_out: got 1.0"),
    ],
)
def test_what_cannot_be_fitted_is_refused(z: Tensor, more: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        fit_latent_density(z, rng(), **more)
    assert str(caught.value).startswith(message)


def learner_of(**model: Any) -> ShortRun:
    config = ModelConfig(**{"latents": (2, 3), "width": 8, **model})
    learner = ShortRun.build(SHAPE, config, InferenceConfig(steps=4, step_size=0.2), levels=2)
    for parameter in learner.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=rng(1))
    return learner


def fitted_to(learner: ShortRun) -> LatentDensity:
    return fit_latent_density(clusters(100, 2, learner.dim), rng())


def test_a_learner_samples_from_either() -> None:
    learner = learner_of()
    with pytest.raises(InputError, match="source: got 'fitted'"):
        learner.sample(3, rng(), "fitted")
    learner.latent_density = fitted_to(learner)
    drawn = learner.sample(5, rng(), "fitted")
    assert torch.equal(drawn, learner.decode(learner.latent_density.mixture.sample(5, rng())))
    assert torch.equal(learner.sample(5, rng()), learner.decode(torch.randn(5, 5, generator=rng())))


def test_it_is_saved_with_the_model_and_is_no_part_of_the_weights(tmp_path: Path) -> None:
    learner = learner_of()
    names = set(learner.state_dict())
    learner.latent_density = fitted_to(learner)
    assert set(learner.state_dict()) == names
    learner.save_pretrained(tmp_path)
    loaded = ShortRun.from_pretrained(tmp_path)
    assert loaded.latent_density is not None
    assert loaded.latent_density.record == learner.latent_density.record
    assert torch.equal(loaded.sample(5, rng(), "fitted"), learner.sample(5, rng(), "fitted"))
    # a model without one leaves none of another behind
    learner_of().save_pretrained(tmp_path)
    assert not (tmp_path / FILE).exists()
    assert ShortRun.from_pretrained(tmp_path).latent_density is None


def test_a_file_that_is_damaged_or_of_another_model_is_refused(tmp_path: Path) -> None:
    learner = learner_of()
    learner.latent_density = fitted_to(learner)
    learner.save_pretrained(tmp_path)
    with pytest.raises(InputError, match="of 5 latents, the model has 6"):
        read_density(tmp_path, 6)
    whole = (tmp_path / FILE).read_bytes()
    for content in (whole[:-10], b"", whole.replace(b"covariance", b"covarianze"), whole.replace(b"means", b"meanz")):
        (tmp_path / FILE).write_bytes(content)
        with pytest.raises(InputError, match=": damaged") as caught:
            ShortRun.from_pretrained(tmp_path)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("word", ["null", "-Infinity", "NaN"])
def test_nats_that_are_not_finite_are_null_in_the_file_and_read_again(tmp_path: Path, word: str) -> None:
    """Files from before hold words that are no JSON."""
    learner = learner_of()
    fitted = fitted_to(learner)
    worst = dataclasses.replace(fitted.record.candidates[0], nats=-math.inf)
    record = dataclasses.replace(fitted.record, nats=math.nan, candidates=(worst, *fitted.record.candidates[1:]))
    write_density(dataclasses.replace(fitted, record=record), tmp_path)
    tensors = load_file(tmp_path / FILE)
    with safe_open(tmp_path / FILE, "pt") as file:
        words = file.metadata()["record"]
    assert words.count('"nats": null') == 2
    save_file(tensors, tmp_path / FILE, {"record": words.replace('"nats": null', f'"nats": {word}')})
    read = read_density(tmp_path, learner.dim)
    assert read is not None
    assert not math.isfinite(read.record.nats)
    assert not math.isfinite(read.record.candidates[0].nats)
    assert read.record.candidates[1:] == fitted.record.candidates[1:]


@pytest.mark.parametrize("name", ["weights", "means", "scale_tril"])
def test_a_density_with_a_number_that_is_not_finite_is_refused(tmp_path: Path, name: str) -> None:
    learner = learner_of()
    write_density(fitted_to(learner), tmp_path)
    with safe_open(tmp_path / FILE, "pt") as file:
        metadata = file.metadata()
    tensors = load_file(tmp_path / FILE)
    tensors[name].view(-1)[0] = math.nan
    save_file(tensors, tmp_path / FILE, metadata)
    with pytest.raises(InputError, match=rf"damaged \({name} is not finite\); restore it from a copy, or delete it"):
        read_density(tmp_path, learner.dim)


def images(n: int) -> Tensor:
    return torch.randint(2, (n, *SHAPE), generator=rng(2)).float() * 2 - 1


def mixed(**model: Any) -> ShortRun:
    """Its prior is not N(0, I): parted, of unlike weights and full covariances."""
    learner, numbers = learner_of(prior="mixture", components=3, **model), rng(6)
    prior, d = learner.generator.prior, learner.dim
    roots = 0.3 * torch.randn(3, d, d, generator=numbers).tril(-1)
    roots += torch.diag_embed(0.5 + torch.rand(3, d, generator=numbers))
    parts = {"means": torch.randn(3, d, generator=numbers), "roots": roots, "inverse": inverses(roots)}
    prior.load_state_dict(prior.state_dict() | parts | {"log_weights": torch.tensor([0.2, 0.3, 0.5]).log()})
    return learner


def test_parts_of_a_batch_infer_what_the_whole_does() -> None:
    learner, x = mixed(), images(6)
    parts = [learner.infer(x[2 * i : 2 * i + 2], rng(), part=(i, 3)).z for i in range(3)]
    torch.testing.assert_close(torch.cat(parts), learner.infer(x, rng()).z)


def test_chains_start_from_the_learned_prior_and_are_guided_by_it() -> None:
    learner, n = mixed(), 4000
    x, nothing = torch.zeros(n, *SHAPE), torch.zeros(1, 1, 4, 4)
    # with nothing observed the posterior is the prior: the chain starts there and stays there
    z = learner.infer(x, rng(), mask=nothing, steps=1).z
    later = learner.infer(x, rng(1), mask=nothing, steps=30).z
    drawn = learner.draw_prior(n, rng(2))
    for other in (z, later):
        assert ((other.mean(0) - drawn.mean(0)).abs() < 6 * drawn.std(0) / n**0.5).all()
        torch.testing.assert_close(other.std(0), drawn.std(0), rtol=0.1, atol=0)
    assert not drawn.requires_grad
    assert not z.requires_grad


def test_a_failed_chain_gives_its_start() -> None:
    learner, x = mixed(), images(4)
    x[1, 0, 0, 0] = torch.nan
    inferred = learner.infer(x, rng())
    assert inferred.failed.tolist() == [False, True, False, False]
    assert torch.equal(inferred.z[1], learner.draw_prior(4, rng())[1])


def test_the_loss_has_the_density_of_the_prior_and_no_weight_of_it() -> None:
    """It is fitted by sums: no gradient reaches it, and that of the generator's weights is of p(x|z) alone."""
    learner, x = mixed(), images(5)
    loss, _ = learner.loss(x, rng())
    z = learner.infer(x, rng()).z
    torch.testing.assert_close(loss, -learner.generator.log_joint(x, z).mean())
    assert not list(learner.generator.prior.parameters())
    weights = list(learner.parameters())
    expected = torch.autograd.grad(-learner.generator.log_likelihood(x, z).mean(), weights)
    torch.testing.assert_close(torch.autograd.grad(loss, weights), expected, rtol=1e-4, atol=1e-6)


def test_a_model_with_a_learned_prior_is_saved_whole(tmp_path: Path) -> None:
    learner = mixed(parameterization="conditional")
    learner.save_pretrained(tmp_path)
    loaded = ShortRun.from_pretrained(tmp_path)
    assert torch.equal(loaded.sample(6, rng()), learner.sample(6, rng()))
    assert torch.equal(loaded.infer(images(3), rng()).z, learner.infer(images(3), rng()).z)


def test_the_weights_of_the_generator_do_not_depend_on_the_prior() -> None:
    """And a model saved before there was a choice of priors has the weights of one with the standard normal."""
    plain, other = (ShortRun.build(SHAPE, ModelConfig(prior=prior), seed=3) for prior in ("normal", "mixture"))
    weights = plain.state_dict()
    assert isinstance(plain.generator.prior, Normal)
    assert all(torch.equal(other.state_dict()[name], value) for name, value in weights.items())
    assert not any("prior" in name for name in weights)


def test_records_are_plain_tables() -> None:
    table = dataclasses.asdict(fit_latent_density(clusters(60, 2), rng()).record)
    assert table["candidates"][0].keys() == {"covariance", "components", "nats"}
