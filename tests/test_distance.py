"""The distances that networks are trained by: closed forms, an independent SSIM, and a frozen backbone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from toy import SOURCE, Toy, pairs

from sstl.compat import import_torchvision_user
from sstl.errors import SstlError
from sstl.losses import Perceptual, distance, edge_loss
from sstl.losses.distance import CHARBONNIER
from sstl.methods import create_method
from sstl.metrics import ssim

KINDS = ("l1", "mse", "charbonnier", "ssim")


@pytest.fixture
def images() -> tuple[torch.Tensor, torch.Tensor]:
    return torch.rand(3, 3, 16, 20, dtype=torch.float64), torch.rand(3, 3, 16, 20, dtype=torch.float64)


def test_a_constant_difference_has_closed_forms():
    image, d = torch.rand(2, 3, 5, 7, dtype=torch.float64), 0.3
    expected = {"l1": d, "mse": d**2, "charbonnier": (d**2 + CHARBONNIER**2) ** 0.5}
    for kind, value in expected.items():
        assert distance(image + d, image, kind).tolist() == pytest.approx([value] * 2)


@pytest.mark.parametrize("kind", KINDS)
def test_equal_images_are_nearest(kind, images):
    nearest = distance(images[0], images[0], kind)
    assert nearest.tolist() == pytest.approx([CHARBONNIER if kind == "charbonnier" else 0.0] * 3, abs=1e-6)
    assert (distance(*images, kind) > nearest + 0.05).all()


@pytest.mark.parametrize("kind", KINDS)
def test_each_image_counts_for_itself(kind, images):
    whole = distance(*images, kind)
    for i in range(3):
        torch.testing.assert_close(distance(images[0][i : i + 1], images[1][i : i + 1], kind), whole[i : i + 1])


def test_ssim_is_that_of_the_metrics(images):
    ours = distance(*images, "ssim")
    for i in range(3):
        a, b = (255 * image[i].permute(1, 2, 0).numpy() for image in images)
        assert 1 - float(ours[i]) == pytest.approx(ssim(a, b), abs=1e-4)


@pytest.mark.parametrize("kind", KINDS[:3])
def test_gradients_are_right(kind, images):
    image = images[0][:1, :, :4, :4].clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: distance(x, images[1][:1, :, :4, :4], kind), image)


def test_the_edge_loss_is_charbonnier_of_the_eight_neighbour_laplacian(images):
    image, target = (x[:1, :1] for x in images)
    difference = np.pad((image - target)[0, 0].numpy(), 1)
    height, width = image.shape[-2:]
    laplacian = np.array(
        [
            [difference[y : y + 3, x : x + 3].sum() - 9 * difference[y + 1, x + 1] for x in range(width)]
            for y in range(height)
        ]
    )
    expected = np.sqrt(laplacian**2 + CHARBONNIER**2).mean()
    assert float(edge_loss(image, target)) == pytest.approx(expected)


def test_the_edge_loss_is_the_same_in_mixed_precision(images):
    image, target = (x.float() for x in images)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = edge_loss(image, image + 0.001 * target)
    assert mixed == edge_loss(image, image + 0.001 * target)


def test_the_edge_loss_sees_blur_where_a_distance_hardly_does():
    sharp = torch.zeros(1, 3, 32, 32)
    sharp[..., 16:] = 1
    blurred = torch.nn.functional.avg_pool2d(sharp, 3, stride=1, padding=1, count_include_pad=False)
    assert edge_loss(blurred, sharp) > 3 * distance(blurred, sharp, "charbonnier").mean()


@pytest.mark.parametrize("kind", KINDS)
def test_supervised_trains_by_each(kind):
    batch = pairs(4, SOURCE, 1)
    network = Toy()
    method = create_method("supervised", network, distance=kind, balance=None, edge=0.05, streak=0.0, mask=0.0)
    parts = method(batch)
    background = network(batch.rainy).background
    expected = distance(background, batch.clean, kind).mean() + 0.05 * edge_loss(background, batch.clean)
    torch.testing.assert_close(parts["loss"], expected)


def test_the_streaks_themselves_can_be_compared():
    batch = pairs(4, SOURCE, 1)
    network = Toy()
    parts = create_method("supervised", network, distance="mse", intensity=True)(batch)
    torch.testing.assert_close(parts["streak"], (network(batch.rainy).streak - batch.streak).square().mean())


@pytest.fixture(scope="module")
def backbone(tmp_path_factory):
    """The state dict of a small torchvision classifier with random weights."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("backbone") / "squeezenet.pth"
    torch.save(
        import_torchvision_user("torchvision.models").get_model("squeezenet1_1", weights=None).state_dict(), path
    )
    return path


def test_the_perceptual_distance_compares_frozen_features(backbone):
    perceptual = Perceptual("squeezenet1_1", backbone, layers=4)
    image, target = torch.rand(2, 3, 32, 32, requires_grad=True), torch.rand(2, 3, 32, 32)
    assert float(perceptual(target, target)) == 0
    found = perceptual(image, target)
    found.backward()
    assert float(found.detach()) > 0
    assert image.grad.abs().sum() > 0
    assert not any(p.requires_grad for p in perceptual.parameters())
    assert not perceptual.train().training


def test_nothing_is_downloaded(tmp_path):
    with pytest.raises(SstlError, match="needs weights of 'vgg16'; give backbone_weights"):
        Perceptual("vgg16", None)
    with pytest.raises(SstlError, match=r"nowhere\.pth: not the state dict of torchvision's 'squeezenet1_1'"):
        Perceptual("squeezenet1_1", tmp_path / "nowhere.pth")


def test_weights_of_another_backbone_are_refused(backbone):
    with pytest.raises(SstlError, match="not the state dict of torchvision's 'resnet18'"):
        Perceptual("resnet18", backbone)
    with pytest.raises(SstlError, match="not the state dict of torchvision's 'no_such_net'"):
        Perceptual("no_such_net", backbone)
