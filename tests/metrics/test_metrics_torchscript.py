import hashlib
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from shortrun.errors import InputError
from shortrun.metrics import frechet_distance
from shortrun.metrics.feature_matrix import feature_matrix
from shortrun.metrics.torchscript import torchscript_features

# PyTorch wants other formats in new code; it still reads this one, which is how networks for figures are passed on
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.:DeprecationWarning")


class Pair(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x, x


class NeedsThree(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        assert x.shape[1] == 3, "three channels wanted"
        return x.mean(2)


class Summed(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1).sum(1)


class Whole(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1).long()


class Halved(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x[::2].flatten(1)


def saved(module: nn.Module, folder: Path, name: str = "net.pt") -> Path:
    torch.jit.save(torch.jit.script(module), str(folder / name))
    return folder / name


def images(n: int = 4, c: int = 1, h: int = 8, w: int = 8) -> Tensor:
    return torch.rand(n, c, h, w, generator=torch.Generator().manual_seed(0)) * 2 - 1


@pytest.mark.parametrize(("input_range", "low", "high"), [("[-1,1]", -1, 1), ("[0,1]", 0, 1), ("[0,255]", 0, 255)])
def test_pixels_come_in_the_range_that_is_asked_for(tmp_path: Path, input_range: str, low: int, high: int) -> None:
    features = torchscript_features(saved(nn.Flatten(), tmp_path), input_range=input_range)
    x = torch.tensor([-1.0, 0.0, 1.0]).view(1, 1, 1, 3)
    assert features(x).tolist() == [[low, (low + high) / 2, high]]


def test_images_come_in_size_and_channels_that_are_asked_for(tmp_path: Path) -> None:
    path, x = saved(nn.Identity(), tmp_path), images()
    assert torch.equal(torchscript_features(path)(x), x.flatten(1))
    small = F.interpolate(x, size=(5, 5), mode="bilinear", antialias=True)
    found = torchscript_features(path, size=5, channels=3)(x)
    assert torch.allclose(found, small.repeat(1, 3, 1, 1).flatten(1))
    coloured = images(c=3)
    assert torch.equal(torchscript_features(path, channels=3)(coloured), coloured.flatten(1))


def test_the_network_is_read_as_it_was_saved_in_evaluation_mode(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 5), nn.BatchNorm1d(5), nn.Dropout(0.5))
    features = torchscript_features(str(saved(net, tmp_path)))
    x = images()
    assert torch.allclose(features(x), net.eval()(x))
    assert torch.equal(features(x), features(x))
    assert not any(weight.requires_grad for weight in features.parameters())


@pytest.mark.parametrize("frozen", [False, True])
def test_it_serves_the_measures_of_sets(tmp_path: Path, frozen: bool) -> None:
    net = torch.jit.script(nn.Sequential(nn.Flatten(), nn.Linear(64, 3)).eval())
    torch.jit.save(torch.jit.freeze(net) if frozen else net, str(tmp_path / "net.pt"))
    features, x = torchscript_features(tmp_path / "net.pt"), images(20).double()
    assert feature_matrix(features, x, 6).shape == (20, 3)
    assert 0 <= frechet_distance(features, x, x.flip(0)) < 1e-5


def test_a_network_of_double_precision_gets_its_own(tmp_path: Path) -> None:
    features = torchscript_features(saved(nn.Sequential(nn.Flatten(), nn.Linear(64, 3).double()), tmp_path))
    assert features(images()).dtype == torch.float64


def test_the_name_tells_which_features_they_are(tmp_path: Path) -> None:
    path = saved(nn.Flatten(), tmp_path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()[:12]
    assert torchscript_features(path).name == f"net.pt, range [-1,1], size as given, sha256 {digest}"
    named = torchscript_features(path, input_range="[0,1]", size=9, channels=3).name
    assert named == f"net.pt, range [0,1], size 9, channels 3, sha256 {digest}"
    other = saved(nn.Sequential(nn.Flatten(), nn.Linear(64, 2)), tmp_path)
    assert digest not in torchscript_features(other).name


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"path: cannot read .*absent\.pt \(No such file"):
        torchscript_features(tmp_path / "absent.pt")
    with pytest.raises(InputError, match="path: cannot read"):
        torchscript_features(tmp_path)
    path = saved(nn.Linear(3, 2), tmp_path)
    content = path.read_bytes()
    for damaged in (b"", b"hello", content[: len(content) // 2]):
        path.write_bytes(damaged)
        with pytest.raises(InputError, match=r"path: .*net\.pt is damaged or no TorchScript file"):
            torchscript_features(path)
    torch.save({"weights": torch.zeros(2)}, path)
    with pytest.raises(InputError, match="no TorchScript file"):
        torchscript_features(path)


@pytest.mark.parametrize(
    ("module", "got"),
    [
        (Pair(), "gives tuple"),
        (Summed(), r"gives torch\.float32 of \[4\]"),
        (Whole(), r"gives torch\.int64 of \[4, 64\]"),
        (Halved(), r"gives torch\.float32 of \[2, 64\]"),
    ],
)
def test_an_output_that_is_no_matrix_of_features_is_refused(tmp_path: Path, module: nn.Module, got: str) -> None:
    features = torchscript_features(saved(module, tmp_path))
    with pytest.raises(InputError, match=rf"net\.pt, .*{got}.*; write a module that gives \(n, d\) floats"):
        features(images())


def test_images_and_options_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    path = saved(nn.Conv2d(3, 2, 3), tmp_path)
    with pytest.raises(InputError, match=r"does not take images of \[4, 1, 8, 8\] .*set input_range, size or channels"):
        torchscript_features(path)(images())
    with pytest.raises(InputError, match="three channels wanted"):
        torchscript_features(saved(NeedsThree(), tmp_path, "three.pt"))(images())
    with pytest.raises(InputError, match="channels: got 3 for images of 2"):
        torchscript_features(path, channels=3)(images(c=2))
    with pytest.raises(InputError, match=r"input_range: got '\[0, 1\]'; did you mean '\[0,1\]'"):
        torchscript_features(path, input_range="[0, 1]")
    with pytest.raises(InputError, match="size: got 0"):
        torchscript_features(path, size=0)
    with pytest.raises(InputError, match="channels: got -1"):
        torchscript_features(path, channels=-1)
