"""Whether single dimensions of a code stand for single known factors of the images."""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from shortrun.errors import InputError, check_at_least

BINS = 20
TREES, TEST_SHARE, LEAF_SHARE = 100, 1 / 3, 0.01
BATCH_SIZE, VOTES = 64, 800


class DCI(NamedTuple):
    """Disentanglement, completeness and informativeness of a code."""

    disentanglement: float
    """How far each dimension serves one factor only, in [0, 1]."""
    completeness: float
    """How far each factor is served by one dimension only, in [0, 1]."""
    informativeness: float
    """The share of factors of images aside that the code tells rightly, 1 at best."""


def mutual_information_gap(codes: Float[Tensor, "n d"], factors: Int[Tensor, "m f"], bins: int = BINS) -> float:
    """Return by how much the best dimension tells more of a factor than the second best, a mean over factors in [0, 1].

        mean_k (I(z_j1; v_k) - I(z_j2; v_k)) / H(v_k),   j1 and j2 the two dimensions of the largest I(z_j; v_k)

    Counts of few images are biased upwards in I, though much less in the gap.

    codes: z, (n, d) with d at least 2, the mean of the posterior as a rule.
    factors: v, (n, f), whole numbers, each column with two values or more; their order does not matter.
    bins: at least 2, into which z_j is cut, of equal width, before I is counted; a factor of more values than bins
        cannot reach 1.

    Raises InputError for other inputs.

    >>> factors = torch.tensor([[0], [1], [0], [1]])
    >>> codes = torch.tensor([[0.0, 5.0], [1.0, 5.0], [0.0, 6.0], [1.0, 6.0]])
    >>> round(mutual_information_gap(codes, factors), 6)
    1.0

    Source: Chen et al., "Isolating Sources of Disentanglement in Variational Autoencoders", 2018, arXiv 1802.04942,
    where I comes from q(z | x); the bins are those of Locatello et al., "Challenging Common Assumptions in the
    Unsupervised Learning of Disentangled Representations", 2019, arXiv 1811.12359.
    """
    from sklearn.metrics import mutual_info_score

    z, v = _checked(codes, factors)
    check_at_least(2, bins=bins)
    cut = [np.digitize(column, np.histogram_bin_edges(column, bins)[1:-1]) for column in z.T]
    gaps = []
    for factor in v.T:
        second, first = np.sort([mutual_info_score(factor, column) for column in cut])[-2:]
        gaps.append((first - second) / mutual_info_score(factor, factor))  # I(v; v) = H(v)
    return float(np.mean(gaps))


def attribute_predictability(codes: Float[Tensor, "n d"], factors: Int[Tensor, "m f"]) -> float:
    """Return the SAP score: how much better the best dimension predicts a factor, linearly, than the second best.

        mean_k (S_(1)k - S_(2)k),   S_jk = Cov(z_j, v_k)^2 / (Var z_j Var v_k), the two largest over j for each k

    The result is in [0, 1]. A dimension of no variance predicts nothing.

    codes: z, (n, d) with d at least 2.
    factors: v, (n, f), taken as quantities: the numbers of a factor without order (a class) have to be left out, unless
        it has two values only.

    Raises InputError for other inputs.

    >>> factors = torch.tensor([[0], [1], [0], [1]])
    >>> codes = torch.tensor([[0.0, 5.0], [1.0, 5.0], [0.0, 6.0], [1.0, 6.0]])
    >>> round(attribute_predictability(codes, factors), 6)
    1.0

    Source: Kumar, Sattigeri and Balakrishnan, "Variational Inference of Disentangled Latent Concepts from Unlabeled
    Observations", 2018, arXiv 1711.00848: its rule for continuous factors.
    """
    z, v = (_standardized(table) for table in _checked(codes, factors))
    scores = np.sort((z.T @ v / len(z)) ** 2, axis=0)
    return float(np.mean(scores[-1] - scores[-2]))


def dci(
    codes: Float[Tensor, "n d"],
    factors: Int[Tensor, "m f"],
    rng: torch.Generator,
    *,
    trees: int = TREES,
    test_share: float = TEST_SHARE,
) -> DCI:
    """Return disentanglement, completeness and informativeness, from random forests that tell each factor.

        R_jk: importance of dimension j for factor k,   P_jk = R_jk / sum_k R_jk,   Q_jk = R_jk / sum_j R_jk
        disentanglement = sum_j (1 - H_f(P_j.)) sum_k R_jk / sum_jk R_jk,   H_f the entropy to the base f
        completeness    = mean_k (1 - H_d(Q_.k)),                           H_d the entropy to the base d
        informativeness = mean_k accuracy for factor k

    All three are in [0, 1]. Importances are the mean decreases of impurity, with all dimensions open to each split and
    leaves of 1% of the images or more. Some goes to noise all the same, so noisy codes score low. Without information
    the third is the share of the commonest value or less, not 0.

    codes: z, (n, d) with d at least 2.
    factors: v, (n, f), whole numbers, with two factors or more.
    rng: splits the images, and seeds the forests.
    trees: at least 1, of each forest.
    test_share: in (0, 1), the share of the images for the accuracy; the forests are fitted to the others.

    Raises InputError for other inputs.

    >>> rng = torch.Generator().manual_seed(0)
    >>> factors = torch.randint(2, (60, 2), generator=rng)
    >>> dci(factors.float(), factors, rng, trees=5).informativeness
    1.0

    Source: Eastwood and Williams, "A Framework for the Quantitative Evaluation of Disentangled Representations", 2018,
    International Conference on Learning Representations; there the third is an error, lower is better.
    """
    from scipy.stats import entropy

    z, v = _checked(codes, factors, least_factors=2)
    check_at_least(1, trees=trees)
    tests = round(test_share * len(z))
    if not 1 <= tests < len(z):
        raise InputError("test_share", f"{test_share} of {len(z)} images", "leave at least one on each side")
    z = _standardized(z)  # forests hold codes in float32, where a common offset would cost digits
    order = torch.randperm(len(z), generator=rng, device=rng.device).cpu().numpy()
    test, train = order[:tests], order[tests:]
    r, accuracies = _forests((z[train], v[train]), (z[test], v[test]), trees, rng)
    # a dimension that no tree uses has no P, and weighs nothing; neither has a factor of one value in `train` a Q
    used, told = r[r.sum(1) > 0], r[:, r.sum(0) > 0]
    if not used.size:
        raise InputError(
            "factors", problem="each has one value among the images of the forests", instead="give more images"
        )
    weights = used.sum(1) / used.sum()
    return DCI(
        disentanglement=float(weights @ (1 - entropy(used, base=v.shape[1], axis=1))),
        completeness=float(np.sum(1 - entropy(told, base=z.shape[1], axis=0)) / v.shape[1]),
        informativeness=float(np.mean(accuracies)),
    )


def _forests(
    train: tuple[np.ndarray, np.ndarray], test: tuple[np.ndarray, np.ndarray], trees: int, rng: torch.Generator
) -> tuple[np.ndarray, list[float]]:
    """Return the importance of each dimension for each factor, (d, f), and the accuracy for each factor.

    train, test: codes and factors of the images that the forests are fitted to, and of those they are tested on.
    """
    from sklearn.ensemble import RandomForestClassifier

    importances, accuracies = [], []
    for factor, factor_test in zip(train[1].T, test[1].T, strict=True):
        forest = RandomForestClassifier(
            trees,
            max_features=1.0,  # pyright: ignore[reportArgumentType]
            # trees that part every image spend most of their splits on noise, and share the importance out to it
            min_samples_leaf=max(1, round(LEAF_SHARE * len(factor))),
            random_state=_seed(rng),
        )
        forest.fit(train[0], factor)
        importances.append(forest.feature_importances_)
        accuracies.append(forest.score(test[0], factor_test))
    return np.stack(importances, axis=1), accuracies


def factor_vae_score(
    codes: Float[Tensor, "n d"],
    factors: Int[Tensor, "m f"],
    rng: torch.Generator,
    *,
    batch_size: int = BATCH_SIZE,
    votes: int = VOTES,
) -> float:
    """Return how often the dimension that varies least among images of one factor's value tells which factor it was.

        vote: k and a value of v_k at random, L images of that value,   j = argmin_j Var_L(z_j) / Var(z_j)
        score = share of new votes (j, k) with k the commonest factor of j among the first votes

    Dimensions of no variance are left out. The result is 1 at best and about 1 / f without information.

    codes: z, (n, d) with d at least 2.
    factors: v, (n, f), whole numbers, with two factors or more; with the codes they are a finite table.
    rng: draws the votes. k is uniform over factors, the value uniform over those that at least L rows have, and the L
        rows are drawn without replacement.
    batch_size: L, at least 2.
    votes: at least 1, how many for the majority, and as many new ones for the score.

    Raises InputError for other inputs, and where no value of a factor has L rows.

    >>> rng = torch.Generator().manual_seed(0)
    >>> factors = torch.randint(2, (60, 2), generator=rng)
    >>> factor_vae_score(factors.float(), factors, rng, batch_size=8, votes=20)
    1.0

    Source: Kim and Mnih, "Disentangling by Factorising", 2018, arXiv 1802.05983; there the votes of the majority are
    scored themselves, and images are made anew for each.
    """
    z, v = _checked(codes, factors, least_factors=2)
    check_at_least(1, votes=votes)
    check_at_least(2, batch_size=batch_size)
    live = _standardized(z)[:, np.ptp(z, axis=0) > 0]
    if not live.shape[1]:
        raise InputError("codes", problem="no dimension varies", instead="give codes that depend on the image")
    groups = _groups(v, batch_size)

    def below(count: int) -> int:
        return int(torch.randint(count, (), generator=rng, device=rng.device))

    def table() -> np.ndarray:
        counts = np.zeros((live.shape[1], len(groups)), dtype=int)
        for _ in range(votes):
            k = below(len(groups))
            group = groups[k][below(len(groups[k]))]
            chosen = torch.randperm(len(group), generator=rng, device=rng.device)[:batch_size].cpu().numpy()
            counts[live[group[chosen]].var(axis=0).argmin(), k] += 1
        return counts

    commonest = table().argmax(axis=1)
    return float(table()[np.arange(len(commonest)), commonest].sum() / votes)


def _groups(factors: np.ndarray, least: int) -> list[list[np.ndarray]]:
    """Return, for each factor, the rows of each of its values that at least so many rows have."""
    groups = []
    for k, factor in enumerate(factors.T):
        rows = [np.flatnonzero(factor == value) for value in np.unique(factor)]
        most = max(len(group) for group in rows)
        if most < least:
            raise InputError("batch_size", least, f"write at most {most}, the rows of a value of factor {k}")
        groups.append([group for group in rows if len(group) >= least])
    return groups


def _checked(codes: Tensor, factors: Tensor, least_factors: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Return codes in float64 and factors as arrays, or say what is wrong with them."""
    if len(codes) != len(factors) or len(codes) < 2:
        raise InputError("factors", f"{len(factors)} rows for {len(codes)} codes", "write two or more pairs")
    if codes.shape[1] < 2:
        raise InputError("codes", f"{codes.shape[1]} dimensions", "write at least two")
    if factors.shape[1] < least_factors:
        raise InputError("factors", factors.shape[1], f"write at least {least_factors}")
    if not torch.isfinite(codes).all():
        raise InputError("codes", problem="some are not finite", instead="leave out images that failed")
    v = factors.cpu().numpy()
    for k, factor in enumerate(v.T):
        if (factor == factor[0]).all():
            raise InputError("factors", f"one value only in column {k}", "leave the column out")
    return codes.detach().double().cpu().numpy(), v


def _standardized(table: np.ndarray) -> np.ndarray:
    """Return columns of mean 0 and variance 1, and those that do not vary as 0."""
    from sklearn.preprocessing import StandardScaler

    # it leaves columns that vary by rounding alone unscaled, and they come out near 0
    return StandardScaler().fit_transform(table.astype(np.float64))


def _seed(rng: torch.Generator) -> int:
    return int(torch.randint(2**31 - 1, (), generator=rng, device=rng.device))
