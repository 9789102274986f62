"""sstl in other people's loops: datasets, torchvision, kornia; and the page's examples, which run as they stand."""

from __future__ import annotations

import pickle

import datasets
import numpy as np
import pytest
import torch
from conftest import ROOT
from datasets.fingerprint import Hasher
from PIL import Image
from skimage import data
from test_docs import BLOCKS

from sstl import AddRain, DerainColumns, RandomRecipeRain
from sstl.compat import import_torchvision_user
from sstl.errors import SstlError, WeightsError
from sstl.networks import save_weights
from sstl.rain import Recipe
from sstl.restore import load

kornia = import_torchvision_user("kornia.augmentation")
tv_tensors = import_torchvision_user("torchvision.tv_tensors")
v2 = import_torchvision_user("torchvision.transforms.v2")

EXAMPLES = [block for block in BLOCKS if block.page == ROOT / "docs" / "loops.md" and block.language == "python"]


@pytest.fixture
def weights(tmp_path, tiny_network):
    return save_weights(tmp_path / "tiny.safetensors", tiny_network)


@pytest.fixture
def pictures():
    return [Image.fromarray(data.astronaut()[:40, :56]), Image.fromarray(data.coffee()[:24, :32])]


@pytest.mark.parametrize("example", EXAMPLES, ids=str)
@pytest.mark.filterwarnings("default")  # whatever other people's packages deprecate
def test_the_examples_run_as_they_stand(example, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    exec(compile(example.text, str(example), "exec"), {"__name__": "example"})
    assert capsys.readouterr().out.strip()
    assert example.text.strip().count("\n") <= 16


def test_there_is_an_example_for_each():
    for name in ("DerainColumns", "AddRain", "RandomRecipeRain", "save_pretrained"):
        assert sum(f"{name}(" in block.text for block in EXAMPLES) == 1


@pytest.mark.parametrize("batched", [False, True])
def test_a_column_of_a_data_set_is_derained(weights, pictures, batched):
    rows = datasets.Dataset.from_dict({"image": pictures, "label": [3, 4]})
    rows = rows.map(DerainColumns(weights, suffix="_dry"), batched=batched)
    assert rows.column_names == ["image", "label", "image_dry"]
    for picture, row in zip(pictures, rows, strict=True):
        expected = load(weights).restore(np.asarray(picture))
        assert np.array_equal(np.asarray(row["image_dry"]), expected)
        assert np.array_equal(np.asarray(row["image"]), np.asarray(picture))


def test_columns_may_be_replaced_and_hold_nothing(weights, pictures):
    derain = DerainColumns(weights, ["left", "right"])
    done = derain({"left": [pictures[0], None], "right": [None, pictures[1]], "label": [0, 1]})
    assert done.keys() == {"left", "right"}
    assert done["left"][1] is done["right"][0] is None
    assert done["right"][1].size == pictures[1].size


def test_the_cache_of_datasets_knows_it_by_the_weights_content(weights, tiny_network, pictures):
    derain, same = DerainColumns(weights), DerainColumns(weights)
    fingerprint = Hasher.hash(derain)
    derain({"image": pictures[0]})
    assert Hasher.hash(derain) == Hasher.hash(same) == fingerprint
    assert len(pickle.dumps(derain)) < 2000
    with torch.no_grad():
        next(tiny_network.parameters()).add_(1)
    save_weights(weights, tiny_network)
    assert Hasher.hash(DerainColumns(weights)) != fingerprint
    assert Hasher.hash(DerainColumns(weights, suffix="_dry")) != Hasher.hash(DerainColumns(weights))


def test_unknown_weights_are_refused_at_once():
    with pytest.raises(WeightsError, match="Did you mean 'joint-small'"):
        DerainColumns("joint-smal")


def sample():
    image = tv_tensors.Image(torch.from_numpy(data.astronaut()[:64, :80].copy()).permute(2, 0, 1))
    box = tv_tensors.BoundingBoxes([[1, 2, 30, 40]], format="XYXY", canvas_size=(64, 80))
    mask = tv_tensors.Mask(torch.ones(64, 80, dtype=torch.uint8))
    return image, {"boxes": box, "masks": mask, "labels": torch.tensor([7])}


def test_rain_changes_the_image_and_no_target():
    image, target = sample()
    rainy, same = AddRain("heavy")(image, target)
    assert isinstance(rainy, tv_tensors.Image)
    assert (rainy.dtype, rainy.shape) == (torch.uint8, image.shape)
    assert (rainy.float() - image.float()).mean() > 1  # rain adds light
    for name, value in target.items():
        assert type(same[name]) is type(value)
        assert torch.equal(same[name], value)


def test_rain_repeats_by_torchs_seed():
    image, _ = sample()
    rains = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        rains.append(AddRain("heavy")(image))
    assert torch.equal(rains[0], rains[1])
    assert not torch.equal(rains[0], rains[2])


def test_it_rains_as_often_as_told():
    image, _ = sample()
    assert torch.equal(AddRain("heavy", p=0)(image), image)
    rain = AddRain("heavy", p=0.5)
    rained = sum(not torch.equal(rain(image), image) for _ in range(40))
    assert 8 <= rained <= 32


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_pil_images_stay_pil_images(mode):
    picture = Image.fromarray(data.astronaut()[:64, :80]).convert(mode)
    rainy = AddRain("heavy")(picture)
    assert (rainy.mode, rainy.size) == (mode, picture.size)
    assert np.asarray(rainy).mean() > np.asarray(picture).mean()


def test_a_dry_recipe_changes_nothing_in_8_bits():
    picture = Image.fromarray(np.arange(256, dtype=np.uint8).repeat(3).reshape(16, 16, 3))
    dry = Recipe(angle=(0, 0), length=(5, 5), density=(0, 0), brightness=(0.1, 0.1))
    assert np.array_equal(np.asarray(AddRain(dry)(picture)), np.asarray(picture))


def test_each_frame_of_a_video_has_its_own_streaks():
    video = tv_tensors.Video(torch.full((3, 3, 48, 48), 0.4))
    rainy = AddRain("heavy")(video)
    assert isinstance(rainy, tv_tensors.Video)
    assert (rainy.dtype, rainy.shape) == (torch.float32, video.shape)
    assert not torch.equal(rainy[0], rainy[1])
    assert rainy.min() >= 0
    assert rainy.max() <= 1


def test_it_composes_and_pickles():
    image, target = sample()
    transform = v2.Compose([AddRain("mixed"), v2.RandomHorizontalFlip(1.0), v2.ToDtype(torch.float32, scale=True)])
    rainy, moved = pickle.loads(pickle.dumps(transform))(image, target)
    assert rainy.dtype == torch.float32
    assert moved["boxes"].tolist() == [[50, 2, 79, 40]]


@pytest.mark.parametrize("rain", [AddRain, RandomRecipeRain])
def test_what_cannot_rain_is_refused(rain):
    with pytest.raises(SstlError, match="Did you mean 'heavy'"):
        rain("heavi")
    with pytest.raises(SstlError, match="lays photographed streaks"):
        rain("garg")
    with pytest.raises(SstlError, match=r"p is 1\.5"):
        rain("heavy", p=1.5)
    with pytest.raises(SstlError, match="shape"):
        rain("heavy", p=1.0)(torch.rand(1, 2, 16, 16))


def test_rain_on_a_batch_as_kornia_does(photo):
    batch = photo.repeat(6, 1, 1, 1)
    rain = RandomRecipeRain("heavy", p=0.5)
    rainy = rain(batch)
    chosen = rain._params["batch_prob"].bool()
    assert 0 < chosen.sum() < 6
    assert torch.equal(rainy[~chosen], batch[~chosen])
    changed = (rainy - batch).flatten(1).mean(dim=1)
    assert (changed[chosen] > 0.005).all()
    assert torch.equal(rain(batch, params=rain._params), rainy)
    both = rainy[chosen]
    assert not torch.equal(both[0], both[1])


def test_the_same_rain_on_the_whole_batch(photo):
    first, second = RandomRecipeRain("heavy", same_on_batch=True, p=1.0)(photo.repeat(2, 1, 1, 1))
    assert torch.equal(first, second)


def test_masks_stay_and_dimensions_are_kept(photo):
    masks = (photo.mean(dim=1, keepdim=True) > 0.5).float()
    rain = kornia.AugmentationSequential(RandomRecipeRain("heavy", p=1.0), data_keys=["input", "mask"])
    rainy, same = rain(photo, masks)
    assert torch.equal(same, masks)
    assert not torch.equal(rainy, photo)
    assert RandomRecipeRain("heavy", p=1.0, keepdim=True)(photo[0]).shape == photo[0].shape


def test_gradients_pass_to_the_images(photo):
    image = photo.clone().requires_grad_()
    RandomRecipeRain("heavy", p=1.0)(image).sum().backward()
    assert image.grad.abs().mean() > 0.1
