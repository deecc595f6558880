"""The script of docs/densities.md, run as it is quoted, against samplers that share nothing with it."""

import io
import re
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import shortrun

PAGE = (Path(__file__).parent.parent.parent / "docs" / "densities.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def ran() -> dict[str, Any]:
    """Return the names that the script leaves, and what it prints as `printed`."""
    (script,) = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
    names: dict[str, Any] = {}
    with redirect_stdout(io.StringIO()) as out:
        exec(script, names)
    return names | {"printed": out.getvalue()}


def mala(x: np.ndarray, y: np.ndarray, chains: int = 64, steps: int = 3000, s: float = 0.22) -> np.ndarray:
    """Return draws of Metropolis-adjusted Langevin chains on the regression, in NumPy, (draws, d)."""
    rng = np.random.default_rng(1)

    def at(b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        logits = b @ x.T
        value = (y * logits - np.logaddexp(0, logits)).sum(1) - (b**2).sum(1) / 2
        return value, (y - 1 / (1 + np.exp(-logits))) @ x - b

    b, kept = rng.standard_normal((chains, x.shape[1])), []
    value, score = at(b)
    for step in range(steps):
        noise = rng.standard_normal(b.shape)
        proposed = b + s**2 / 2 * score + s * noise
        there, back = at(proposed)
        ratio = there - value - (((b - proposed - s**2 / 2 * back) / s) ** 2).sum(1) / 2 + (noise**2).sum(1) / 2
        moved = np.log(rng.random(chains)) < ratio
        b, score = (np.where(moved[:, None], *pair) for pair in ((proposed, b), (back, score)))
        value = np.where(moved, there, value)
        if step >= steps // 3 and step % 10 == 0:
            kept.append(b)
    return np.concatenate(kept)


def hold_against(reference: np.ndarray, ran: dict[str, Any]) -> None:
    z = ran["draws"].numpy()
    assert z.dtype == np.float64
    assert z.shape == (1000, 20)
    assert np.abs((z.mean(0) - reference.mean(0)) / reference.std(0)).max() < 0.2
    assert np.abs(z.std(0) / reference.std(0) - 1).max() < 0.15


def test_its_draws_are_those_of_long_adjusted_chains(ran: dict[str, Any]) -> None:
    reference = mala(ran["x"].numpy(), ran["y"].numpy())
    hold_against(reference, ran)
    # the diagnosis has found the same truth
    long = ran["checked"].reference.z.flatten(0, 1).numpy()
    assert np.abs((long.mean(0) - reference.mean(0)) / reference.std(0)).max() < 0.15
    assert np.abs(long.std(0) / reference.std(0) - 1).max() < 0.1


def test_its_draws_are_those_of_numpyro(ran: dict[str, Any]) -> None:
    numpyro, jax = pytest.importorskip("numpyro"), pytest.importorskip("jax")
    x, y = ran["x"].numpy(), ran["y"].numpy()

    def model() -> None:
        b = numpyro.sample("b", numpyro.distributions.Normal(0, 1).expand([x.shape[1]]).to_event(1))
        numpyro.sample("y", numpyro.distributions.Bernoulli(logits=x @ b).to_event(1), obs=y)

    run = numpyro.infer.MCMC(numpyro.infer.NUTS(model), num_warmup=500, num_samples=2000, progress_bar=False)
    run.run(jax.random.PRNGKey(0))
    hold_against(np.asarray(run.get_samples()["b"], dtype=np.float64), ran)


def test_what_it_prints_is_what_the_page_says(ran: dict[str, Any]) -> None:
    """Words and not digits: these are the processor's."""
    (quoted,) = re.findall(r"It prints.*?```text\n(.*?)```", PAGE, flags=re.DOTALL)
    first_words = [[line.split()[:3] for line in text.splitlines()[:4]] for text in (quoted, ran["printed"])]
    assert [words[0] for words in first_words[0]] == [words[0] for words in first_words[1]]
    before, after = (
        [line for line in text.splitlines() if line.startswith("verdict")] for text in (quoted, ran["printed"])
    )
    assert [line[:40] for line in before] == [line[:40] for line in after]
    assert after[-1].startswith("verdict: the short runs are good draws")


def test_the_warning_that_is_quoted_is_the_one_that_is_given() -> None:
    (quoted,) = re.findall(r"^RuntimeWarning: (.*?) \(", PAGE, flags=re.MULTILINE)
    with pytest.warns(RuntimeWarning, match=re.escape(quoted)):
        shortrun.draw(lambda z: -(z**2).sum(1) / 2, shortrun.Start.standard(20), torch.Generator().manual_seed(0), 2.0)
