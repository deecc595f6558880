"""The density fitted to the latents of training images, and its file beside the model.

Source: Ghosh et al., "From Variational to Deterministic Autoencoders", ICLR 2020, arXiv 1903.12436.
"""

import json
import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from torch import Tensor

from shortrun.errors import InputError, damaged
from shortrun.files import to_text
from shortrun.learners.weights import check_finite, write_weights
from shortrun.mapping import from_mapping
from shortrun.model.latent_density import GaussianMixture
from shortrun.normals import Flat, PerImage, standard_normal

if TYPE_CHECKING:
    from sklearn import mixture

Covariance = Literal["full", "diag"]

FILE = "latent_density.safetensors"
RESTORE = "restore it from a copy, or delete it and do without"
LEAST = 10
"""Fewest images that a density is fitted to."""
SIZES = (1, 2, 5, 10, 20, 50, 100)
FLOOR = 1e-3
"""Added to every variance, so that no component shrinks around one image; the latents' own are around 1."""
ITERATIONS = 100
FEWEST = 4
"""Iterations: a size that the work allows fewer of is left out."""
WORK = 1e10
"""Multiplications of one fit, about 2 s of one core; without a bound, 10,000 images of 112 latents take minutes."""


@dataclass(frozen=True)
class Candidate:
    """One size of mixture, and how well it foretold latents that it had not seen."""

    covariance: Covariance
    components: int
    nats: float
    """Mean of log q(z) over the latents held out."""


@dataclass(frozen=True)
class FitRecord:
    """How a density was chosen; a plain table in result.json and in the file of the density."""

    components: int
    covariance: Covariance
    images: int
    """Training images whose latents it was fitted to."""
    held_out_images: int
    """Of them, those held out while the size was chosen."""
    nats: float
    """Mean of log q(z) over the latents held out, by the chosen size fitted to the others."""
    prior_nats: float | None
    """The same of the model's prior; one that was learned has seen these images too. None where it has no prior, or
    one whose constant is not known."""
    better_than_prior: bool | None
    candidates: tuple[Candidate, ...]

    @property
    def gain(self) -> float | None:
        """Nats for each image by which it foretells latents better than the prior; below 0: worse."""
        return None if self.prior_nats is None else self.nats - self.prior_nats


@dataclass(frozen=True)
class LatentDensity:
    """A fitted density and how it was chosen. No module: it is not a part of the learner's weights."""

    mixture: GaussianMixture
    record: FitRecord


def fit_latent_density(
    z: Flat,
    rng: torch.Generator,
    sizes: Sequence[int] = SIZES,
    held_out: float = 0.2,
    log_prior: Callable[[Flat], PerImage] | None = standard_normal,
) -> LatentDensity:
    """Return a mixture of normals that is fitted to latents, of the size that foretells held-out ones best.

        size = argmax mean_{i held out} log q_size(z_i),   q_size fitted to the others by expectation maximization

    Both full and diagonal covariances are tried, but diagonal ones alone where there are fewer than 2 d images or a
    full one would take too long. Sizes rise, and end where the held-out mean has fallen twice in a row, or where too
    few iterations could be paid for. What is worse than the prior is returned all the same, and `better_than_prior`
    says so.

    z: (n, d), one row for each image, at least 10.
    rng: draws which are held out, and the starts of the fits.
    sizes: numbers of normals that are tried, in rising order.
    held_out: in (0, 1), the share of the latents that the sizes are compared on.
    log_prior: log p(z) of the model's prior, (n, d) -> (n,), which the record compares with; None where it has none, or
        one whose constant is not known.

    Raises InputError for fewer than 10 images, for latents that are not finite, for sizes or a share that cannot be.

    Source: Ghosh et al., "From Variational to Deterministic Autoencoders", ICLR 2020, arXiv 1903.12436.
    """
    _check(z, sizes, held_out)
    order = torch.randperm(len(z), generator=rng, device=rng.device).cpu()
    state = int(torch.randint(2**31, (1,), generator=rng, device=rng.device))
    shuffled = z.detach().cpu()[order]
    rows = shuffled.double().numpy()
    held = min(max(round(held_out * len(z)), 1), len(z) - LEAST // 2)
    seen, unseen = rows[held:], rows[:held]
    n, d = rows.shape
    kinds: list[Covariance] = ["full", "diag"] if n >= 2 * d and n * d**2 <= WORK else ["diag"]
    candidates = [found for kind in kinds for found in _candidates(seen, unseen, kind, sizes, state)]
    best = max(candidates, key=lambda candidate: candidate.nats)
    fitted = _fit(rows, best.covariance, best.components, state)
    prior_nats = None
    if log_prior is not None:
        with torch.no_grad():
            prior_nats = float(log_prior(shuffled[:held].to(z.device)).double().mean())
    record = FitRecord(
        components=best.components,
        covariance=best.covariance,
        images=len(z),
        held_out_images=held,
        nats=best.nats,
        prior_nats=prior_nats,
        better_than_prior=None if prior_nats is None else best.nats > prior_nats,
        candidates=tuple(candidates),
    )
    return LatentDensity(_module(fitted, best.covariance), record)


def _check(z: Flat, sizes: Sequence[int], held_out: float) -> None:
    """Raise InputError for what no density can be fitted to."""
    if len(z) < LEAST:
        raise InputError("z", f"latents of {len(z)} images", f"give at least {LEAST}")
    if not torch.isfinite(z).all():
        raise InputError("z", problem="some latents are not finite", instead="leave out the images whose chain failed")
    if not sizes or min(sizes) < 1 or list(sizes) != sorted(set(sizes)):
        raise InputError("sizes", list(sizes), "write whole numbers of at least 1 in rising order")
    if not 0 < held_out < 1:
        raise InputError("held_out", held_out, "write a number between 0 and 1")


def _candidates(
    seen: np.ndarray, unseen: np.ndarray, covariance: Covariance, sizes: Sequence[int], state: int
) -> list[Candidate]:
    """Return the sizes of one kind that were tried, in rising order."""
    found: list[Candidate] = []
    for size in sizes:
        if found and (2 * size > len(seen) or _iterations(seen, covariance, size) < FEWEST):
            break
        nats = float(_fit(seen, covariance, min(size, len(seen)), state).score(unseen))
        found.append(Candidate(covariance, min(size, len(seen)), nats))
        if len(found) > 2 and found[-3].nats > found[-2].nats > found[-1].nats:
            break
    return found


def _iterations(rows: np.ndarray, covariance: Covariance, size: int) -> int:
    """Return how many iterations the work that is allowed pays for."""
    n, d = rows.shape
    # 30 d: what there is to do besides products of matrices, as measured
    return min(ITERATIONS, int(WORK / (n * size * (d**2 * (covariance == "full") + 30 * d))))


def _fit(rows: np.ndarray, covariance: Covariance, size: int, state: int) -> "mixture.GaussianMixture":
    # imported when it is needed: it takes a second
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture as Mixture

    fitted = Mixture(
        size,
        covariance_type=covariance,
        max_iter=max(_iterations(rows, covariance, size), FEWEST),
        reg_covar=FLOOR,
        random_state=state,
    )
    with warnings.catch_warnings():
        # a fit that was stopped early is judged by held-out latents like any other
        warnings.simplefilter("ignore", ConvergenceWarning)
        return fitted.fit(rows)


def _module(fitted: "mixture.GaussianMixture", covariance: Covariance) -> GaussianMixture:
    spreads = np.asarray(fitted.covariances_)
    matrices = spreads if covariance == "full" else np.stack([np.diag(row) for row in spreads])
    parts = (np.asarray(fitted.weights_), np.asarray(fitted.means_), np.linalg.cholesky(matrices))
    return GaussianMixture(*(torch.from_numpy(part).float() for part in parts))


def write_density(density: LatentDensity | None, folder: Path) -> None:
    """Write latent_density.safetensors into a folder, whole or not at all; for None, remove one that is there."""
    if density is None:
        (folder / FILE).unlink(missing_ok=True)
        return
    write_weights(density.mixture.state_dict(), folder / FILE, {"record": to_text(asdict(density.record))})


def _with_numbers(record: dict[str, Any]) -> dict[str, Any]:
    """Return a record with NaN where its nats were not finite, for which JSON has null."""
    return {**record, "nats": math.nan} if record["nats"] is None else record


def read_density(folder: Path, dim: int) -> LatentDensity | None:
    """Return what `write_density` wrote; None where nothing is there.

    folder: of the model.
    dim: d of the model.

    Raises InputError where the file is damaged or of another model.
    """
    path = folder / FILE
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            tensors: dict[str, Float[Tensor, "..."]] = {
                name: file.get_tensor(name) for name in ("weights", "means", "scale_tril")
            }
            record = _with_numbers(json.loads((file.metadata() or {})["record"]))
        candidates = map(_with_numbers, record["candidates"])
        record["candidates"] = tuple(from_mapping(Candidate, found, "candidates") for found in candidates)
        density = LatentDensity(GaussianMixture(**tensors), from_mapping(FitRecord, record, "record"))
    except (SafetensorError, OSError, KeyError, TypeError, ValueError, InputError) as error:
        raise damaged(path, error, RESTORE) from None
    check_finite(tensors, path, RESTORE)
    if density.mixture.dim != dim:
        problem = f"a density of {density.mixture.dim} latents, the model has {dim}"
        raise InputError(str(path), problem=problem, instead="restore it from a copy")
    return density
