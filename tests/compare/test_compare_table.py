"""The table of a comparison."""

import csv
from pathlib import Path
from typing import Any

from shortrun.compare import Budget
from shortrun.compare.table import tables, write_table


def run(mse: float, noise: bool | None = None) -> dict[str, Any]:
    training = {"updates": 10, "cpu_seconds": 1.0, "seed": 0, "words": "no number"}
    inferred = {} if noise is None else {"mse": {"value": mse, "split": "test", "noise": noise, "steps": [0.123456, 2]}}
    return {
        **inferred,
        "mse_draw": {"value": mse, "pixels": "[0, 1]", "split": "test", "seed": 0},
        "training": training,
    }


def test_means_spreads_and_common_conditions(tmp_path: Path) -> None:
    runs = {
        "short_run": [run(0.010, noise=True), run(0.012, noise=True)],
        "vae": [run(0.02, noise=True), run(0.03, noise=False)],
    }
    runs["vae"][0]["mse"]["steps"] = 3
    runs["vae"][0]["nats"] = {"value": -3.5, "split": "test"}
    runs["vae"][1]["nats"] = {"left_out": "why"}
    words = write_table(runs, tmp_path, Budget(60.0, "s"))
    assert words == (tmp_path / "table.md").read_text()
    head, _, ours, theirs, _, cost, _, mine, yours, _, said, of_error, inference, why = words.splitlines()
    assert head == "| rebuilding, likelihood, 60s | seeds | MSE of a draw | log p(x), nats |"
    assert ours == "| short_run | 2 | 0.0110 ± 0.0014 | - |"
    assert theirs == "| vae | 2 | 0.0250 ± 0.0071 | -3.5 |"
    assert cost == "| cost, latents, 60s | seeds | updates | training, CPU s |"
    assert mine == "| short_run | 2 | 10 | 1.0000 ± 0.0000 |"
    assert yours == mine.replace("short_run", "vae")
    assert said == "All: split test.  "
    assert of_error == "MSE of a draw: pixels [0, 1].  "
    assert inference == "short_run: noise True, steps 0.1235 2.  "
    assert why == "short_run without log p(x), nats: it was not measured.  "
    with (tmp_path / "table.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["learner"], row["seed"], row["mse_draw"]) for row in rows] == [
        ("short_run", "0", "0.01"),
        ("short_run", "1", "0.012"),
        ("vae", "0", "0.02"),
        ("vae", "1", "0.03"),
    ]
    assert [row["nats"] for row in rows] == ["", "", "-3.5", ""]


def test_a_flow_and_a_generator_are_in_columns_of_their_own() -> None:
    heads = {column.name: column.column for column in tables()["rebuilding, likelihood"]}
    assert heads["nats"] == "log p(x), nats"
    assert heads["nats_with_noise"] == "log p(x + u), nats"
    assert heads["bits_per_dim"] != heads["bits_per_dim_with_noise"]


def test_every_empty_cell_and_column_has_its_reason(tmp_path: Path) -> None:
    runs = RUNS_WITH_REASONS
    table = write_table(runs, tmp_path, Budget(2, "epochs"))
    assert "| rae | 1 |" in table
    assert "Left out: log p(x), nats: left out by --fast.  " in table
    assert "rae without FID, prior: the learner has no prior.  " in table
    assert "vae without prior fit: the prior is no mixture of normals" in table
    assert "bits/dim" not in table  # nobody was to measure it
    assert table == (tmp_path / "table.md").read_text()


TRAINED = {"updates": 3, "cpu_seconds": 1.0, "parameters": 7}
NO_NATS = {"left_out": "left out by --fast"}
RUNS_WITH_REASONS = {
    "vae": [{"mse_draw": {"value": 0.1}, "fid_prior": {"value": 3.0}, "nats": NO_NATS, "training": TRAINED}],
    "rae": [
        {
            "mse_draw": {"value": 0.2},
            "prior_fit": {"value": 1.0},
            "fid_prior": {"left_out": "the learner has no prior"},
            "nats": NO_NATS,
            "training": TRAINED,
        }
    ],
}
