from shortrun.compare.labels import labels


def test_settings_are_shown_by_their_last_word() -> None:
    long = "vae,training.learning-rate=2e-3,training.kl-schedule=0 0 0.2 1"
    assert labels(["short_run", long]) == {
        "short_run": "short_run",
        long: "vae, learning-rate 2e-3, kl-schedule 0 0 0.2 1",
    }


def test_entrants_that_would_look_alike_keep_their_names() -> None:
    alike = ["glow,glow.width=8", "glow,encoder.width=8"]
    assert labels(["vae,model.width=8", *alike]) == {
        "vae,model.width=8": "vae, width 8",
        **{name: name for name in alike},
    }
