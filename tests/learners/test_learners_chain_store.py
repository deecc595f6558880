from pathlib import Path

import numpy as np
import pytest
import torch

from shortrun.errors import InputError
from shortrun.learners.chain_store import ChainStore


def numbers(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


@pytest.fixture(params=["memory", "disk"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ChainStore:
    return ChainStore(10, 3, None if request.param == "memory" else tmp_path / "chains.npy")


def test_what_is_written_is_read_and_the_others_stay(store: ChainStore) -> None:
    store.load(numbers(10, 3))
    rows, z = torch.tensor([7, 0, 4]), numbers(3, 3) + 5
    store.write(rows, z)
    assert torch.equal(store.read(rows), z)
    others = torch.tensor([1, 2, 3, 5, 6, 8, 9])
    assert torch.equal(store.read(others), numbers(10, 3)[others])
    assert len(store) == 10


def test_what_is_read_is_a_copy(store: ChainStore) -> None:
    rows = torch.arange(4)
    store.read(rows).fill_(3)
    assert torch.equal(store.read(rows), torch.zeros(4, 3))


def test_it_holds_float32_whatever_it_gets(store: ChainStore) -> None:
    store.write(torch.tensor([1]), torch.full((1, 3), 1.25, dtype=torch.bfloat16))
    assert store.z.dtype == torch.float32
    assert store.read(torch.tensor([1])).tolist() == [[1.25] * 3]


@pytest.mark.parametrize("row", [-1, 10])
def test_an_image_that_is_not_kept_is_refused(store: ChainStore, row: int) -> None:
    with pytest.raises(InputError, match=rf"^rows: got {row} of 10 images; write 0 to 9$"):
        store.read(torch.tensor([0, row]))


def test_chains_of_another_run_are_refused(store: ChainStore) -> None:
    for shape in ((9, 3), (10, 4)):
        with pytest.raises(ValueError, match="chains: got"):
            store.load(numbers(*shape))


def test_on_disk_the_file_holds_them_all(tmp_path: Path) -> None:
    store = ChainStore(10, 3, tmp_path / "chains.npy")
    store.load(numbers(10, 3))
    assert np.array_equal(np.load(tmp_path / "chains.npy"), numbers(10, 3).numpy())
    assert [path.name for path in tmp_path.iterdir()] == ["chains.npy"]


def test_a_new_store_does_not_write_into_the_file_of_an_old_one(tmp_path: Path) -> None:
    old = ChainStore(10, 3, tmp_path / "chains.npy")
    old.load(numbers(10, 3))
    new = ChainStore(2, 3, tmp_path / "chains.npy")
    assert torch.equal(old.z, numbers(10, 3))
    assert np.load(tmp_path / "chains.npy").shape == (2, 3)
    assert torch.equal(new.z, torch.zeros(2, 3))


def test_each_process_has_a_file_of_its_own(tmp_path: Path) -> None:
    stores = [ChainStore(2, 3, tmp_path / "chains.npy", rank) for rank in (0, 1)]
    stores[1].write(torch.tensor([0]), torch.ones(1, 3))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["chains.npy", "chains_1.npy"]
    assert stores[0].z.abs().sum() == 0
    assert np.load(tmp_path / "chains_1.npy")[0].tolist() == [1, 1, 1]
