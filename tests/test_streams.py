"""Streams of random numbers: what they follow from, and that no two uses have the same by accident."""

import itertools

import numpy as np
import torch

from shortrun.streams import Use, initial_weights, seed_of, stream

SHARED = {("ENCODER", "CHAIN")}
"""The pair that has the same numbers since the first figures were published; see `seed_of`."""


def test_a_stream_follows_from_seed_use_and_step() -> None:
    one, again, next_step, other = (
        torch.rand(4, generator=stream(*key))
        for key in ((3, Use.CHAIN, 5), (3, Use.CHAIN, 5), (3, Use.CHAIN, 6), (4, Use.CHAIN, 5))
    )
    assert one.equal(again)
    assert not one.equal(next_step)
    assert not one.equal(other)


def test_the_numbers_are_those_of_published_figures() -> None:
    def wanted(*key: int) -> int:
        return int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0])

    assert seed_of(7, Use.ORDER, 2) == wanted(7, 0, 2)
    assert seed_of(7, Use.CHAIN, 812) == wanted(7, 1, 812)
    assert seed_of(7, Use.TEST) == wanted(7, 3)
    assert seed_of(7, Use.ENCODER) == wanted(7, 1)
    assert seed_of(7, Use.STARTS) == wanted(7, 1606, 8571, 0, 0)
    assert seed_of(7, Use.DRAW) == wanted(7, 1509, 9)


def test_no_two_uses_share_their_numbers() -> None:
    seeds = {use: seed_of(0, use) for use in Use}  # of update or epoch 0, where a use has one
    alike = {(a.name, b.name) for a, b in itertools.permutations(Use, 2) if seeds[a] == seeds[b]}
    assert alike == SHARED | {(b, a) for a, b in SHARED}


def test_updates_and_epochs_never_meet_a_stream_of_another_use() -> None:
    counted = [use for use in Use if not use.value[1].startswith("nothing")]
    assert {use.name for use in counted} == {"ORDER", "CHAIN", "TUNE"}
    of_steps = {seed_of(0, use, step) for use in counted for step in range(1, 300)}
    assert len(of_steps) == 3 * 299
    assert not of_steps & {seed_of(0, use) for use in Use}


def test_initial_weights_leave_the_global_state_alone() -> None:
    torch.manual_seed(5)
    wanted = torch.rand(2)
    torch.manual_seed(5)
    with initial_weights(1):
        first = torch.nn.Linear(2, 2).weight
    with initial_weights(1):
        again = torch.nn.Linear(2, 2).weight
    assert first.equal(again)
    assert torch.rand(2).equal(wanted)
