"""What classifiers read off codes: whether they hold a label, and how openly."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from shortrun.errors import InputError

if TYPE_CHECKING:
    from sklearn.base import ClassifierMixin

ITERATIONS = 1000


def linear_probe(
    codes_train: Float[Tensor, "n d"],
    labels_train: Int[Tensor, "_"],
    codes_test: Float[Tensor, "m _"],
    labels_test: Int[Tensor, "_"],
) -> float:
    """Return the accuracy on test codes of a logistic regression that is fitted to train codes, in [0, 1].

        argmin_W sum_i -log softmax(W s(z_i) + b)_(y_i) + |W|^2 / 2,   s standardizes each dimension by the train codes

    The fit is convex, so that there is no seed. The share of the commonest label is chance.

    codes_train: z, (n, d).
    labels_train: y, (n,), two values or more.
    codes_test: (m, d).
    labels_test: (m,); a label that was not among the train ones counts as wrong.

    Raises InputError for other inputs.

    >>> codes, labels = torch.tensor([[-1.0], [-2.0], [1.0], [2.0]]), torch.tensor([0, 0, 1, 1])
    >>> linear_probe(codes, labels, codes, labels)
    1.0

    Source: Alain and Bengio, "Understanding Intermediate Layers Using Linear Classifier Probes", 2016, arXiv
    1610.01644.
    """
    from sklearn.linear_model import LogisticRegression

    return _accuracy(LogisticRegression(max_iter=ITERATIONS), codes_train, labels_train, codes_test, labels_test)


def network_probe(
    codes_train: Float[Tensor, "n d"],
    labels_train: Int[Tensor, "_"],
    codes_test: Float[Tensor, "m _"],
    labels_test: Int[Tensor, "_"],
    seed: int = 0,
) -> float:
    """Return the accuracy on test codes of a network with one hidden layer of 100, in [0, 1].

    It finds a label that codes hold, but not openly: where it does much better than `linear_probe`, the label is there
    in a form that no linear classifier can read. A tenth of the train codes decides when it has learned enough.

    codes_train: z, (n, d).
    labels_train: y, (n,), two values or more, and at least 2 codes of each.
    codes_test: (m, d).
    labels_test: (m,); a label that was not among the train ones counts as wrong.
    seed: 0 or more, of the initial weights and the order of the codes.

    Raises InputError for other inputs.

    >>> codes = torch.randn(400, 2, generator=torch.Generator().manual_seed(0))
    >>> labels = (codes.prod(1) > 0).long()
    >>> given = codes[:300], labels[:300], codes[300:], labels[300:]
    >>> linear_probe(*given) < 0.7, network_probe(*given) > 0.8
    (True, True)
    """
    from sklearn.neural_network import MLPClassifier

    if len(labels_train) and int(labels_train.unique(return_counts=True)[1].min()) < 2:
        raise InputError("labels_train", "a class of one code", "write two or more codes of each class")
    network = MLPClassifier((100,), early_stopping=True, random_state=seed, max_iter=ITERATIONS)
    return _accuracy(network, codes_train, labels_train, codes_test, labels_test)


def _accuracy(
    classifier: "ClassifierMixin", codes_train: Tensor, labels_train: Tensor, codes_test: Tensor, labels_test: Tensor
) -> float:
    """Return the accuracy of a classifier of codes that are standardized by the train codes."""
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    for name, codes, labels in (("train", codes_train, labels_train), ("test", codes_test, labels_test)):
        if len(codes) != len(labels) or not len(codes):
            raise InputError(f"labels_{name}", f"{len(labels)} for {len(codes)} codes", "write one for each code")
        if not torch.isfinite(codes).all():
            raise InputError(f"codes_{name}", problem="some are not finite", instead="leave out images that failed")
    _check_dims(codes_train, codes_test)
    if len(labels_train.unique()) < 2:
        raise InputError("labels_train", "one value only", "write two or more classes")
    probe = make_pipeline(StandardScaler(), classifier)
    probe.fit(_array(codes_train), labels_train.cpu().numpy())
    return float(probe.score(_array(codes_test), labels_test.cpu().numpy()))


def linear_probes(
    codes_train: Float[Tensor, "n d"],
    labels_train: Int[Tensor, "_"],
    codes_test: Float[Tensor, "m _"],
    labels_test: Int[Tensor, "_"],
    layer_sizes: Sequence[int],
) -> list[float]:
    """Return the accuracy of `linear_probe` for each layer of the codes alone, in the order of the layers.

        accuracy_l = linear_probe(z[:, a_l : a_l + d_l], ...),   a_l = d_1 + ... + d_(l - 1)

    codes_train: z, (n, d).
    labels_train: y, (n,), two values or more.
    codes_test: (m, d).
    labels_test: (m,).
    layer_sizes: d_l, each at least 1, which add up to d.

    Raises InputError for other inputs.
    """
    dims = codes_train.shape[1]
    if min(layer_sizes, default=0) < 1 or sum(layer_sizes) != dims:
        raise InputError("layer_sizes", list(layer_sizes), f"write whole numbers of at least 1 that add up to {dims}")
    _check_dims(codes_train, codes_test)
    parts = zip(codes_train.split(list(layer_sizes), 1), codes_test.split(list(layer_sizes), 1), strict=True)
    return [linear_probe(train, labels_train, test, labels_test) for train, test in parts]


def _check_dims(train: Tensor, test: Tensor) -> None:
    if train.shape[1] != test.shape[1] or not train.shape[1]:
        got = f"{test.shape[1]} dimensions, but the train codes have {train.shape[1]}"
        raise InputError("codes_test", got, "write codes of one model")


def _array(codes: Tensor) -> np.ndarray:
    return codes.detach().double().cpu().numpy()
