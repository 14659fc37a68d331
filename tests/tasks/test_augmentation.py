import pytest
import torch

from whit.core.data import Augment
from whit.tasks.augmentation import random_affine, random_shifts


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("augment", [random_shifts(2), random_affine(10.0, 0.1, 2.0)])
def test_shape_and_type_stay_and_the_generator_decides(augment: Augment) -> None:
    images = torch.rand(6, 3, 10, 12)
    before = images.clone()
    moved = augment(images, generator())
    assert moved.shape == images.shape and moved.dtype == images.dtype
    assert torch.equal(images, before), "the input must not be written to"
    torch.rand(5)  # global random numbers must not matter
    assert torch.equal(moved, augment(images, generator()))
    assert not torch.equal(moved, augment(images, generator(1)))


def test_each_image_is_moved_by_whole_pixels_of_its_own() -> None:
    images = torch.zeros(64, 1, 9, 9)
    images[:, :, 4, 4] = 7.0
    moved = random_shifts(2)(images, generator())
    places = (moved[:, 0] == 7.0).nonzero()
    assert len(places) == 64
    offsets = places[:, 1:] - 4
    assert offsets.min() == -2 and offsets.max() == 2
    assert len(offsets.unique(dim=0)) > 12


def test_background_comes_in_at_the_edge() -> None:
    moved = random_shifts(1, background=-3.0)(torch.ones(50, 1, 4, 4), generator())
    assert set(moved.unique().tolist()) == {-3.0, 1.0}


def test_no_turn_no_change() -> None:
    images = torch.rand(4, 1, 7, 7)
    assert torch.allclose(random_affine(0.0, 0.0, 0.0)(images, generator()), images, atol=1e-5)


def test_a_turn_keeps_the_centre() -> None:
    images = torch.zeros(8, 1, 9, 9)
    images[:, :, 4, 4] = 1.0
    turned = random_affine(45.0, 0.0, 0.0)(images, generator())
    assert torch.allclose(turned[:, 0, 4, 4], torch.ones(8), atol=1e-5)
