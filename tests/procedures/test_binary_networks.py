import pytest
from torch import nn

from whit.errors import NoEffect, SpecError
from whit.procedures.binary_networks import check_choice, check_ends, real_ends


def test_real_ends():
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2), nn.Linear(2, 2))
    assert real_ends(model, "binary", "binary") == ()
    assert real_ends(model, "real", "binary") == ("0",)
    assert real_ends(model, "real", "real") == ("0", "3")
    with pytest.raises(NoEffect, match="2 layers"):
        real_ends(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)), "real", "real")
    with pytest.raises(NoEffect, match="1 layer,"):
        real_ends(nn.Sequential(nn.Linear(2, 2)), "real", "binary")
    assert real_ends(model, "levels", "real") == ("3",), "any other word means treated"
    with pytest.raises(NoEffect, match="and last='real' would leave none for this technique"):
        real_ends(nn.Sequential(nn.Linear(2, 2)), "levels", "real")


def test_unknown_choices_name_the_nearest():
    check_ends("binary", "real")
    with pytest.raises(SpecError, match="first.*'binary'"):
        check_ends("binry", "real")
    with pytest.raises(SpecError, match="last"):
        check_ends("real", None)
    with pytest.raises(SpecError, match="colour was given 'rad'. Did you mean 'red'"):
        check_choice("colour", "rad", ("red", "blue"))
