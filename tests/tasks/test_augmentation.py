import pytest
import torch

from whit.core.data import Augment
from whit.tasks.augmentation import in_turn, random_affine, random_flips, random_shifts


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


AUGMENTS = [
    random_shifts(2),
    random_affine(10.0, 0.1, 2.0),
    random_flips(),
    in_turn(random_shifts(1), random_flips()),
]


@pytest.mark.parametrize("augment", AUGMENTS)
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


def test_half_of_the_images_are_mirrored_each_by_itself() -> None:
    images = torch.arange(400 * 2 * 3 * 4.0).view(400, 2, 3, 4)
    flipped = random_flips()(images, generator())
    mirrored = [torch.equal(new, old.flip(2)) for new, old in zip(flipped, images, strict=True)]
    same = [torch.equal(new, old) for new, old in zip(flipped, images, strict=True)]
    assert all(a != b for a, b in zip(mirrored, same, strict=True))
    assert 160 < sum(mirrored) < 240
    drawn = torch.rand(400, 1, 1, 1, generator=generator()) < 0.5
    assert mirrored == drawn.flatten().tolist()


def test_augmentations_in_turn_share_one_generator() -> None:
    images = torch.rand(20, 1, 6, 6)
    one = generator(3)
    expected = random_flips()(random_shifts(2)(images, one), one)
    assert torch.equal(in_turn(random_shifts(2), random_flips())(images, generator(3)), expected)
    other = in_turn(random_flips(), random_shifts(2))(images, generator(3))
    assert not torch.equal(other, expected)


def test_nothing_in_turn_changes_nothing() -> None:
    images = torch.rand(3, 1, 4, 4)
    assert torch.equal(in_turn()(images, generator()), images)
