"""Which images each update sees."""

import torch

from shortrun.training.order import Order
from shortrun.training.processes import Processes

CPU = torch.device("cpu")
ORDER = Order(images=23, batch_size=6, seed=3)


def epoch(number: int) -> list[int]:
    """The images of an epoch, counted from 0, in their order."""
    steps = range(number * ORDER.steps_an_epoch, (number + 1) * ORDER.steps_an_epoch)
    return [row for step in steps for row in ORDER.rows(step, Processes(0, 1, CPU)).tolist()]


def test_an_epoch_shows_each_image_once_at_most_and_leaves_out_what_fills_no_batch() -> None:
    assert ORDER.steps_an_epoch == 3
    assert len(epoch(0)) == len(set(epoch(0))) == 18
    assert epoch(0) != epoch(1)
    assert epoch(0) == epoch(0)


def test_processes_share_the_batch_of_one() -> None:
    whole = ORDER.rows(4, Processes(0, 1, CPU))
    assert torch.cat([ORDER.rows(4, Processes(rank, 3, CPU)) for rank in range(3)]).equal(whole)


def test_updates_are_counted_in_epochs() -> None:
    assert [ORDER.epoch(updates) for updates in (1, 2, 3, 4, 6, 7)] == [1, 1, 1, 2, 2, 3]
    assert [ORDER.ends_epoch(updates) for updates in (1, 2, 3, 4, 6, 7)] == [False, False, True, False, True, False]


def test_the_next_picture_comes_at_the_end_of_an_epoch() -> None:
    assert [ORDER.next_picture(updates, 2) for updates in (0, 5, 6, 11)] == [6, 6, 12, 12]
