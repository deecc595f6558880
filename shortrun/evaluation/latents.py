"""What latents say of the images: how well labels are read off them, and how single ones stand for known factors."""

from collections.abc import Callable, Iterable

import torch
from jaxtyping import Bool, Int, Int64
from torch import Tensor

from shortrun.errors import InputError
from shortrun.evaluation.assessment import Assessment
from shortrun.evaluation.quantity import LATENTS, Measure, Quantity, unless_refused
from shortrun.evaluation.reconstructions import reconstructed
from shortrun.metrics.disentanglement import (
    DCI,
    attribute_predictability,
    dci,
    factor_vae_score,
    mutual_information_gap,
)
from shortrun.metrics.figure import Figure
from shortrun.metrics.probes import linear_probe, linear_probes
from shortrun.progress import shown
from shortrun.streams import Use

PROBE_IMAGES = 5000

PROBE = Quantity("probe", LATENTS, "linear probe")
MIG, SAP = Quantity("mig", LATENTS, "MIG"), Quantity("sap", LATENTS, "SAP")
OF_DCI = tuple(Quantity(f"dci_{name}", LATENTS, name) for name in DCI._fields)
FACTOR_VAE = Quantity("factor_vae", LATENTS, "FactorVAE score")


def probe(assessment: Assessment) -> list[Figure]:
    """Return how well a linear classifier reads the labels of test images off their codes, all and layer by layer."""
    learner, train = assessment.learner, assessment.dataset.train
    codes = assessment.once(reconstructed).codes
    labels, test_labels = train.labels, assessment.dataset.test.take(len(codes)).labels
    if labels is None or test_labels is None:
        return [PROBE.left_out("the data set has no labels")]
    count, rng, rows = min(PROBE_IMAGES, len(train)), assessment.rng(Use.PROBE), []
    for batch in assessment.batches(count, "latents of train images"):
        mask = train.observed(batch)
        mask = None if mask is None else mask.to(learner.device)
        z = learner.infer(train.images(batch).to(learner.device), rng, mask=mask).z
        rows.append(torch.cat(learner.layers(z), 1).float().cpu())
    given = (torch.cat(rows), labels[:count], codes, test_labels)
    there = {"train_images": count, "images": len(codes)}

    def measured() -> list[Figure]:
        return [PROBE.figure(linear_probe(*given), there, layers=linear_probes(*given, learner.latents))]

    return unless_refused(measured, [PROBE])


def factor_figures(assessment: Assessment) -> Iterable[Figure]:
    """Return how far single dimensions of the codes stand for single factors, of all codes and layer by layer.

    SAP takes factors as quantities, and is without one that is the labels.
    """
    factors = assessment.factors
    if factors is None:
        return []
    codes = assessment.once(reconstructed).codes
    ordered = factors[:, ~of_classes(factors, assessment.dataset.test.take(len(codes)).labels)]
    scores: dict[tuple[Quantity, ...], Callable[[Tensor], tuple[float, ...]]] = {
        (MIG,): lambda z: (mutual_information_gap(z, factors),),
        (SAP,): lambda z: (attribute_predictability(z, ordered),),
        OF_DCI: lambda z: dci(z, factors, assessment.rng(Use.FACTORS)),
        (FACTOR_VAE,): lambda z: (factor_vae_score(z, factors, assessment.rng(Use.FACTORS)),),
    }
    counts = {SAP: ordered.shape[1]}
    layers = codes.split(assessment.learner.latents, dim=1)
    found: list[Figure] = []
    for quantities, score in shown(scores.items(), "factors", "score"):

        def measured(score: Callable = score, quantities: tuple[Quantity, ...] = quantities) -> list[Figure]:
            there = {"images": len(codes), "factors": counts.get(quantities[0], factors.shape[1])}
            whole, parts = score(codes), [_of_layer(score, layer, len(quantities)) for layer in layers]
            return [
                quantity.figure(whole[i], there, layers=[part[i] for part in parts])
                for i, quantity in enumerate(quantities)
            ]

        found += unless_refused(measured, quantities)
    return found


def of_classes(factors: Int[Tensor, "n f"], labels: Int64[Tensor, "n"] | None) -> Bool[Tensor, "f"]:
    """Say which factors are the labels, of more than two classes: their numbers have no order.

    factors: (n, f).
    labels: (n,); None where there are none.
    """
    if labels is None or len(labels.unique()) <= 2:
        return torch.zeros(factors.shape[1], dtype=torch.bool)
    return (factors.cpu() == labels[:, None]).all(0)


def _of_layer(score: Callable[[Tensor], tuple[float, ...]], z: Tensor, count: int) -> tuple[float | None, ...]:
    try:
        return score(z)
    except InputError:  # of one dimension for example: there is no second best
        return (None,) * count


MEASURES = (
    Measure("probe", (PROBE,), probe),
    Measure("factors", (MIG, SAP, *OF_DCI, FACTOR_VAE), factor_figures),
)
