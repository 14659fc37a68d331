import pytest
import torch
from two_layer_cases import block_of, inputs_of

from whit.errors import SpecError
from whit.procedures.coordinate_descent.input_block import InputBlock, InputLevels, hat_shares

TABLE = torch.randn(40, 7, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


@pytest.mark.parametrize("kind", ["binary", "signs", "few"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_sums_over_a_level_are_products_with_its_indicator(kind, dtype):
    inputs = inputs_of(kind).to(dtype)
    block = block_of(inputs, True)
    assert block.exact
    assert len(block.levels) == len(inputs.unique()) - 1
    for level in block.levels:
        expected = (inputs == level.value).double().t() @ TABLE
        torch.testing.assert_close(
            level.sums(TABLE.to(dtype)).double(), expected, rtol=0, atol=1e-5
        )


def test_alike_columns_are_stored_as_differences():
    (level,) = block_of(inputs_of("binary").float(), False).levels
    assert level.chained
    assert len(level.rows) < int((inputs_of("binary") == level.value).sum())
    alone = torch.eye(8).repeat(3, 1)
    (level,) = block_of(alone, False).levels
    assert not level.chained


def test_dense_levels_give_the_same_sums():
    inputs = torch.tensor([1.0, 1.0, 0.0]).repeat(40, 3)
    block = InputBlock(inputs, (0.0, 1.0), 0.0, False)
    assert block.levels[0].dense is not None
    torch.testing.assert_close(block.levels[0].sums(TABLE.float()), inputs.t() @ TABLE.float())


@pytest.mark.parametrize("kind", ["binary", "signs", "few", "many"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("bias", [True, False])
def test_products_are_those_of_the_inputs(kind, dtype, bias):
    inputs = inputs_of(kind).to(dtype)
    block = block_of(inputs, bias)
    weight = torch.randn(6, 8 + bias, generator=torch.Generator().manual_seed(1)).to(dtype)
    full = torch.cat([inputs, inputs.new_ones(40, 1)], 1) if bias else inputs
    torch.testing.assert_close(block.products(weight), full @ weight.t())
    assert block.power == pytest.approx(float(full.square().sum()), rel=1e-5)


def test_other_precision_keeps_the_inputs():
    block = block_of(inputs_of("few"), True)
    narrow = block.to(torch.float32)
    assert narrow.columns.dtype == torch.float32
    assert torch.equal(narrow.columns.double(), block.columns)
    assert narrow.to(torch.float32) is narrow
    assert len(narrow.levels) == len(block.levels)


def test_shares_interpolate_and_add_up():
    grid = torch.tensor([0.0, 0.5, 2.0])
    columns = torch.tensor([[0.0, 0.25, 0.5, 1.25, 2.0]])
    shares = torch.stack(hat_shares(columns, grid, 4)).squeeze(1)
    expected = torch.tensor([[4, 2, 0, 0, 0], [0, 2, 4, 2, 0], [0, 0, 0, 2, 4]])
    assert torch.equal(shares.long(), expected)


def test_inputs_beyond_the_levels_count_as_the_ends():
    grid = torch.tensor([0.0, 1.0])
    low, high = hat_shares(torch.tensor([[-1.0, 0.0, 3.0]]), grid, 2)
    assert low.tolist() == [[2, 2, 0]] and high.tolist() == [[0, 0, 2]]


def test_levels_are_found_or_become_a_grid():
    few = InputLevels.of(inputs_of("signs"))
    assert (few.values, few.base, few.exact) == ((-1.0, 1.0), -1.0, True)
    many = InputLevels.of(torch.cat([torch.zeros(50), torch.rand(50)])[:, None], grid=2)
    assert many.base == 0 and not many.exact and len(many.values) == 2
    pixels = InputLevels.of(torch.cat([torch.zeros(99), torch.arange(256)])[:, None] / 128 - 1, 2)
    assert pixels.values == (-1.0, 1.0) and pixels.base == -1.0
    middle = InputLevels.of(torch.cat([torch.zeros(50), torch.linspace(-1, 2, 60)])[:, None], 4)
    assert middle.base == 0.0 and middle.values == (-1.0, 0.0, 1.0, 2.0)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: InputLevels.of(torch.zeros(3, 2), 1), "2 or more"),
        (lambda: InputLevels.of(torch.tensor([[1.0], [torch.nan]])), "not finite"),
        (lambda: InputBlock(torch.zeros(3, 2), (1.0, 2.0), 0.0), "none of the levels"),
    ],
)
def test_bad_input_is_refused(make, message):
    with pytest.raises(SpecError, match=message):
        make()
