"""An assessment against the measures it is made of, called one by one."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from shortrun.config import GlowConfig, InferenceConfig, LearnerConfig, ModelConfig
from shortrun.data import Dataset, ImageSet
from shortrun.errors import InputError
from shortrun.evaluation import Figure, annealing_gap, density, log_likelihood_figures
from shortrun.evaluation.assess import assess
from shortrun.evaluation.importance import importance_figures
from shortrun.evaluation.measures import PARTS, QUANTITIES
from shortrun.evaluation.reconstructions import reconstruction_figures
from shortrun.learners import ShortRun, Vae
from shortrun.learners.glow import Glow
from shortrun.learners.latent_density import fit_latent_density
from shortrun.metrics import disentanglement, frechet_distance, pixels
from shortrun.metrics.feature_matrix import feature_matrix
from shortrun.metrics.figure import from_json, to_json
from shortrun.metrics.kernel import kernel_distance
from shortrun.metrics.neighbours import neighbour_figures
from shortrun.metrics.probes import linear_probe, linear_probes
from shortrun.streams import Use, stream

SHAPE, LATENTS = (1, 6, 6), (1, 4)
SMALL: dict[str, Any] = {
    **{"samples": 60, "likelihood_images": 5, "rate_images": 3},
    **{"temperatures": 12, "importance_samples": 7},
}


def image_set(n: int, seed: int, labels: bool = True) -> ImageSet:
    """Noise around a bright upper or lower half."""
    rng = torch.Generator().manual_seed(seed)
    classes = torch.arange(n) % 2
    pixels = torch.randint(0, 9, (n, *SHAPE), generator=rng, dtype=torch.uint8)
    pixels[classes == 1, :, :3] += 8
    pixels[classes == 0, :, 3:] += 8
    return ImageSet(pixels, classes if labels else None, levels=17)


def dataset(labels: bool = True) -> Dataset:
    return Dataset("halves", image_set(50, 0, labels), image_set(40, 1, labels))


class Corners(nn.Module):
    """The means of 3x3 pixels."""

    name = "means of 3x3"

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.avg_pool2d(x, 3).flatten(1)


def short_run() -> ShortRun:
    """A generator of smooth images, with a density of its latents."""
    learner = ShortRun.build(SHAPE, ModelConfig(latents=LATENTS, width=8), InferenceConfig(steps=3), levels=17)
    rng = torch.Generator().manual_seed(1)
    for parameter in learner.generator.parameters():
        parameter.data += 0.2 * torch.randn(parameter.shape, generator=rng)
    learner.latent_density = fit_latent_density(1 + torch.randn(30, 5, generator=rng), rng)
    return learner.eval()


def value(figure: Figure) -> float:
    assert figure.value is not None
    return figure.value


@pytest.fixture(scope="module")
def whole() -> dict[str, Figure]:
    return assess(short_run(), dataset(), Corners(), 4, gap_images=3, factors=FACTORS, **SMALL)


FACTORS = torch.stack([torch.arange(40) % 2, torch.arange(40) // 8 % 3], 1)


def test_each_number_has_its_conditions(whole: dict[str, Figure]) -> None:
    assert from_json(json.loads(json.dumps(to_json(whole.values()), allow_nan=False))) == whole
    for name, entry in whole.items():
        assert name == entry.name
        assert entry.group == QUANTITIES[name].group
        if entry.value is None:
            assert entry.left_out
            assert name == "factor_vae"  # 40 images are too few
            continue
        assert not entry.left_out
        assert entry.conditions["data"] == "halves"
        said = {"split": "test", "learner": "short_run", "seed": 4, "steps": 3, "noise": True}
        assert {key: entry.conditions[key] for key in said} == said
        assert entry.conditions["images"] > 0
        assert math.isfinite(entry.value)
    draws = [f"{name}_{source}" for source in ("prior", "fitted") for name in parts_of_draws()]
    for name in draws:
        assert whole[name].conditions["features"] == "means of 3x3"
        assert whole[name].conditions["pixels"] == "[-1, 1]"
        assert whole[name].conditions["samples"] == (60 if name.startswith(("fid", "kid")) else 40)
    assert whole["fid_prior"].conditions["drawn_from"] == "the prior"
    assert "fitted to latents of 30 train images" in whole["fid_fitted"].conditions["drawn_from"]
    assert whole["mse"].conditions["pixels"] == "[0, 1]"
    assert whole["nats"].conditions["temperatures"] == 12
    assert whole["nats"].conditions["of"] == "the density of pixels in [-1, 1], Gaussian"
    assert whole["importance_nats"].conditions["samples"] == 7
    assert set(draws) < set(whole)


def parts_of_draws() -> tuple[str, ...]:
    return ("fid", "kid", "precision", "recall", "density", "coverage")


def test_no_figure_depends_on_which_others_are_asked_for(whole: dict[str, Figure]) -> None:
    found: dict[str, Figure] = {}
    before = torch.random.get_rng_state()
    for part in reversed(PARTS):
        one = assess(short_run(), dataset(), Corners(), 4, factors=FACTORS, parts=[part], **SMALL)
        assert one
        assert not set(one) & set(found)
        found |= one
    assert found == {name: entry for name, entry in whole.items() if name != "annealing_gap"}
    assert torch.equal(before, torch.random.get_rng_state())
    other = assess(short_run(), dataset(), Corners(), 5, parts=["reconstruction", "samples"], **SMALL)
    for name in ("mse", "fid_prior", "fid_fitted", "kid_prior"):
        assert other[name].value != whole[name].value, name


def test_reconstructions_are_those_of_one_inference(whole: dict[str, Figure]) -> None:
    """With the random numbers of the test figures of a run of training."""
    learner, x = short_run(), dataset().test.images()
    wanted = reconstruction_figures(learner, x, stream(4, Use.TEST))
    assert whole["mse"].value == pytest.approx(wanted["mse"].value, rel=1e-9)
    assert whole["second_moment"].value == pytest.approx(wanted["second_moment"].value)
    assert whole["second_moment"].own["layers"] == pytest.approx(wanted["second_moment"].own["layers"])
    assert whole["failed_test_chains"].value == wanted["failed_test_chains"].value == 0
    rebuilt = learner.reconstruct(x, stream(4, Use.TEST))
    assert whole["psnr"].value == pytest.approx(float(pixels.psnr(x, rebuilt).mean()))
    assert whole["ssim"].value == pytest.approx(float(pixels.ssim(x, rebuilt).mean()))
    assert whole["ssim"].conditions["window"] == 5  # of 6x6 pixels


def test_draws_are_compared_with_all_test_images(whole: dict[str, Figure]) -> None:
    learner, x = short_run(), dataset().test.images()
    for source, use in (("prior", Use.PRIOR), ("fitted", Use.FITTED)):
        made = learner.sample(60, stream(4, use), source)  # type: ignore[arg-type]
        fid = frechet_distance(Corners(), x, made)
        assert whole[f"fid_{source}"].value == pytest.approx(fid, rel=1e-6)
        kid = kernel_distance(Corners(), x, made, stream(4, Use.SUBSETS))
        assert whole[f"kid_{source}"].value == pytest.approx(kid.mean)
        assert whole[f"kid_{source}"].own["std_of_subsets"] == pytest.approx(kid.std)


def test_neighbours_are_counted_among_equal_numbers() -> None:
    """Of images that are like the draws, so that no figure is 0."""
    learner, data = short_run(), dataset()
    like = ((learner.sample(40, torch.Generator().manual_seed(0)) + 1) * 8).round().to(torch.uint8)
    found = assess(
        learner, Dataset("like", data.train, ImageSet(like, levels=17)), Corners(), 4, parts=["samples"], **SMALL
    )
    x = feature_matrix(Corners(), like / 8 - 1)
    made = feature_matrix(Corners(), learner.sample(60, stream(4, Use.PRIOR)))
    for name, value in neighbour_figures(x, made[:40], 5)._asdict().items():
        assert found[f"{name}_prior"].value == pytest.approx(value)
        assert found[f"{name}_prior"].conditions["neighbours"] == 5
        assert value > 0.1


def test_log_p_is_of_the_first_images(whole: dict[str, Figure]) -> None:
    learner, x = short_run(), dataset().test.images(slice(0, 5))
    annealed = log_likelihood_figures(learner, x, stream(4, Use.ANNEALING), temperatures=12)
    weighted = importance_figures(learner, x, stream(4, Use.IMPORTANCE), samples=7)
    gap = annealing_gap(learner, 3, stream(4, Use.GAP), temperatures=12)
    for figure in (annealed["nats"], annealed["bits_per_dim"], weighted["importance_nats"], gap):
        found = whole[figure.name]
        assert (found.value, found.own) == (figure.value, figure.own)
        assert figure.conditions.items() <= found.conditions.items()
    assert whole["nats"].standard_error == annealed["nats"].standard_error
    assert set(gap.own) == {"standard_error", "lower", "upper"}
    none = assess(learner, dataset(), parts=["likelihood"], likelihood_images=0)
    assert {figure.left_out for figure in none.values()} == {"likelihood_images = 0"}


def test_codes_are_probed_and_held_against_factors(whole: dict[str, Figure]) -> None:
    learner, data = short_run(), dataset()
    codes = learner.infer(data.test.images(), stream(4, Use.TEST)).z
    train = learner.infer(data.train.images(), stream(4, Use.PROBE)).z
    assert data.train.labels is not None
    assert data.test.labels is not None
    given = (train, data.train.labels, codes, data.test.labels)
    assert whole["probe"].value == linear_probe(*given)
    assert whole["probe"].own["layers"] == linear_probes(*given, LATENTS)
    assert whole["probe"].conditions["train_images"] == 50
    lower = codes[:, 1:]
    assert whole["mig"].value == disentanglement.mutual_information_gap(codes, FACTORS)
    # the top layer has one latent, and so no second best
    assert whole["mig"].own["layers"] == [None, disentanglement.mutual_information_gap(lower, FACTORS)]
    assert whole["sap"].own["layers"] == [None, disentanglement.attribute_predictability(lower, FACTORS)]
    three = disentanglement.dci(codes, FACTORS, stream(4, Use.FACTORS))
    assert whole["dci_informativeness"].value == three.informativeness
    assert whole["dci_completeness"].value == three.completeness
    assert "batch_size" in whole["factor_vae"].left_out
    many = Dataset("five times", data.train, repeated(data.test))
    found = assess(learner, many, seed=4, factors=FACTORS.repeat(5, 1)[:180], test_images=180, parts=["factors"])
    codes = learner.infer(many.test.images(slice(0, 180)), stream(4, Use.TEST)).z
    votes = disentanglement.factor_vae_score(codes, FACTORS.repeat(5, 1)[:180], stream(4, Use.FACTORS))
    assert found["factor_vae"].value == votes
    assert found["factor_vae"].conditions["images"] == 180


def test_factors_of_the_data_set_are_taken_where_none_are_given() -> None:
    learner, data = short_run(), dataset()
    classes = torch.arange(40) % 3
    factors = {"half": FACTORS[:, 0], "class": classes, "third": FACTORS[:, 1]}
    known = Dataset("known", data.train, replace(data.test, labels=classes, factors=factors))
    found = assess(learner, known, seed=4, parts=["factors"], test_images=30)
    codes, table = learner.infer(data.test.images(slice(0, 30)), stream(4, Use.TEST)).z, known.test.factor_table()
    assert table is not None
    assert found["mig"].value == pytest.approx(disentanglement.mutual_information_gap(codes, table[:30]))
    assert found["mig"].conditions["factors"] == 3
    # the numbers of classes have no order, by which this score goes
    assert found["sap"].value == pytest.approx(disentanglement.attribute_predictability(codes, FACTORS[:30]))
    assert found["sap"].conditions["factors"] == 2
    given = assess(learner, known, seed=4, factors=FACTORS, parts=["factors"])
    assert given["sap"].conditions["factors"] == given["mig"].conditions["factors"] == 2
    classes_only = Dataset("known", data.train, replace(known.test, factors={"class": classes}))
    assert assess(learner, classes_only, parts=["factors"])["sap"].left_out


def repeated(images: ImageSet) -> ImageSet:
    assert images.labels is not None
    return ImageSet(images.pixels.repeat(5, 1, 1, 1), images.labels.repeat(5), images.levels)


def test_layers_of_the_conditional_parameterization_are_the_generators() -> None:
    model = ModelConfig(latents=LATENTS, width=8, parameterization="conditional")
    learner, data = ShortRun.build(SHAPE, model, InferenceConfig(steps=2), levels=17).eval(), dataset()
    for parameter in learner.generator.parameters():
        parameter.data += 0.3 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(2))
    z = learner.infer(data.test.images(), stream(0, Use.TEST)).z
    codes = torch.cat(learner.layers(z), 1)
    assert not torch.allclose(codes, z)
    found = assess(learner, data, factors=FACTORS, parts=["factors"])
    assert found["mig"].value == pytest.approx(disentanglement.mutual_information_gap(codes, FACTORS))


def test_where_no_features_can_be_learned_they_have_to_be_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shortrun.evaluation.rotations.FEWEST", 1000)
    learner = short_run()
    learner.latent_density = None
    found = assess(learner, dataset(labels=False), parts=["samples", "probe"], **SMALL)
    draws = {f"{name}_{source}" for name in parts_of_draws() for source in ("prior", "fitted")}
    assert set(found) == {"probe", *draws}
    for name, entry in found.items():
        assert ("no density was fitted" if name.endswith("_fitted") else "label") in entry.left_out
    assert found["fid_prior"].value is None
    given = assess(learner, dataset(labels=False), Corners(), parts=["samples"], **SMALL)
    assert value(given["fid_prior"]) > 0
    few = assess(learner, dataset(labels=False), Corners(), parts=["samples"], **{**SMALL, "samples": 5})
    assert value(few["fid_prior"]) > 0
    assert few["recall_prior"].left_out.startswith("k: got 5")


def test_own_features_are_those_of_the_data_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHORTRUN_CACHE", str(tmp_path))
    monkeypatch.setattr("shortrun.evaluation.classifier.MOST_STEPS", 8)
    found = assess(short_run(), dataset(), parts=["samples"], **SMALL)["fid_prior"]
    assert len(list(tmp_path.rglob("*.safetensors"))) == 1
    assert found.conditions["features"] == "own classifier of halves"
    assert 0 <= found.conditions["features_accuracy"] <= 1
    assert found.conditions["features_train_images"] == 50


class Perfect(ShortRun):
    """Decodes to the image that it saw last."""

    def infer(self, x: Tensor, *arguments: Any, **options: Any) -> Any:
        self.seen = x
        return super().infer(x, *arguments, **options)

    def decode(self, z: Tensor) -> Tensor:
        return self.seen


def test_what_is_rebuilt_exactly_has_no_ratio() -> None:
    learner = Perfect(short_run().generator, 2)
    found = assess(learner, dataset(), parts=["reconstruction"])
    assert (found["mse"].value, found["ssim"].value) == (0, pytest.approx(1))
    assert "exactly" in found["psnr"].left_out
    assert found["mse"].conditions["learner"] == "Perfect"


def test_chains_that_fail_are_counted() -> None:
    learner = short_run()
    learner.step_size.log_values.fill_(30.0)
    learner.retries = 0
    found = assess(learner, dataset(), parts=["reconstruction"])
    assert found["failed_test_chains"].value == 40


def test_a_flow_has_its_exact_density() -> None:
    description = LearnerConfig(SHAPE, 17, learner="glow", glow=GlowConfig(scales=1, flows=2, width=4))
    glow = Glow.from_description(description)
    data = Dataset("even", dataset().train, dataset().test)
    glow.loss(data.train.images(), torch.Generator().manual_seed(0))
    found = assess(glow.eval(), data, parts=["likelihood", "reconstruction"], **{**SMALL, "likelihood_images": 40})
    x = data.test.images()
    with torch.no_grad():  # the mean over the noise, by many more draws
        rng = torch.Generator().manual_seed(1)
        draws = [glow.log_prob(x + (torch.rand(x.shape, generator=rng) - 0.5) / 8).mean() for _ in range(400)]
    wanted, slack = torch.stack(draws).mean(), torch.stack(draws).std()
    assert abs(value(found["nats_with_noise"]) - wanted) < 4.5 * slack * math.sqrt(1 / density.NOISE_DRAWS + 1 / 400)
    bits = -(value(found["nats_with_noise"]) / 36 + math.log(1 / 8)) / math.log(2)
    assert found["bits_per_dim_with_noise"].value == pytest.approx(bits)
    assert found["nats_with_noise"].own["standard_error"] > 0
    # under names of their own: they are not what generators have as nats and bits_per_dim
    assert all("log p(x + u)" in found[name].left_out for name in ("nats", "bits_per_dim", "importance_nats"))
    assert "not to be ranked" in found["nats_with_noise"].note
    assert "uniform noise" in found["nats_with_noise"].conditions["of"]
    assert value(found["mse"]) < 1e-6
    gap = assess(glow, data, parts=["likelihood"], gap_images=2, **SMALL)["annealing_gap"]
    assert "no annealing" in gap.left_out


def test_an_encoder_proposes_and_floats_have_no_bits() -> None:
    learner = Vae.build(SHAPE, ModelConfig(latents=LATENTS, width=8), levels=None)
    found = assess(learner, dataset(), parts=["likelihood"], **{**SMALL, "likelihood_images": 99})
    assert found["importance_nats"].conditions["proposal"] == "the encoder"
    assert found["nats"].conditions["images"] == 40
    assert "floats" in found["bits_per_dim"].left_out


def test_what_cannot_be_estimated_is_left_out_with_its_reason() -> None:
    learner = short_run()
    next(learner.generator.parameters()).data.fill_(math.nan)
    found = assess(learner, dataset(), parts=["likelihood"], gap_images=1, **{**SMALL, "likelihood_images": 2})
    assert set(found) == {"nats", "bits_per_dim", "importance_nats", "annealing_gap"}
    assert all("not finite" in entry.left_out for entry in found.values())


class Refuses(Corners):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x)[0]


def test_what_cannot_be_asked_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    learner, data = short_run(), dataset()
    wrong: list[dict[str, Any]] = [{"samples": 1}, {"likelihood_images": -1}, {"temperatures": 0}, {"gap_images": -1}]
    wrong += [{"importance_samples": 0}, {"batch_size": 0}, {"seed": -1}, {"test_images": 0}, {"test_images": 41}]
    for options in wrong:
        for name, value in options.items():
            with pytest.raises(InputError, match=f"{name}: got {value}"):
                assess(learner, data, **options)
    with pytest.raises(InputError, match="parts: got 'sample'; did you mean 'samples'"):
        assess(learner, data, parts=["sample"])
    with pytest.raises(InputError, match="factors: got 39 rows for 40"):
        assess(learner, data, factors=FACTORS[1:])
    with pytest.raises(InputError, match=r"features: got \[4\] for 2 images"):
        assess(learner, data, Refuses())
    monkeypatch.setitem(__import__("sys").modules, "torchmetrics", None)
    with pytest.raises(InputError, match=r"pip install 'shortrun\[metrics\]'"):
        assess(learner, data)
    assert assess(learner, data, parts=["probe"])
