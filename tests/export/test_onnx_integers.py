"""Layers of whole numbers in ONNX: QDQ patterns, and exactly the integers of the file."""

HEAD

def integer_network(exponent=36, limits=(0, 255), bias=True, low=-100):
    random = np.random.default_rng(3)
    first = weight("int8", 8, 4 * 9, low=low, high=100, taps=9)
    factors = random.integers(2**20, 2**21, 8).astype(np.int32) | 1
    shifts = random.integers(-900, 900, 8).astype(np.int32) if bias else None
    second = weight("int8", 10, 8 * 16, low=-90, high=90, seed=1)
    head = weight("int8", 6, 10, 1, low=-90, high=90, seed=2)
    return [
        BYTES,
        Conv2d(first, None, (3, 3), (1, 1), (1, 1), 3),
        Requantize(factors, shifts, exponent - 7, *limits),
        MaxPool2d((2, 2), (2, 2)),
        Flatten(),
        Linear(second, None),
        Requantize(np.array([(3333 << 18) + 1], np.int32), None, exponent, *limits),
        Linear(head, np.zeros(6, np.float32)),
    ]


@pytest.mark.parametrize("limits", [(0, 255), (0, 15), (-128, 127), (-100, 90)])
@pytest.mark.parametrize("bias", [True, False])
def test_integer_layers_become_qdq_patterns(limits, bias):
    program = program_of(integer_network(limits=limits, bias=bias), (4, 8, 8))
    built = build(program, "qdq")
    assert built.merged == {2, 6}
    assert operators_of(program).count("QuantizeLinear") == 2
    expected, found = both(program, 40)
    assert np.abs(expected - found).max() <= 0.02 * np.abs(expected).max()
    assert np.array_equal(expected.argmax(1), found.argmax(1))


@pytest.mark.parametrize("limits", [(0, 255), (-100, 90), (-300, 700)])
def test_exact_integer_layers_are_bit_for_bit(limits):
    program = program_of(integer_network(limits=limits), (4, 8, 8))
    assert build(program, "exact").merged == set()
    expected, found = both(program, 40, "exact")
    assert np.array_equal(expected, found)


def test_onnx_runtime_takes_the_pattern_as_integer_kernels(tmp_path):
    import onnxruntime

    program = program_of(integer_network(), (4, 8, 8))
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    content = model_of(program, build(program, "qdq")).SerializeToString()
    onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    kernels = [node.op_type for node in onnx.load(tmp_path / "optimised.onnx").graph.node]
    assert "QLinearConv" in kernels
    assert "QGemm" in kernels


def test_a_maximum_may_stand_before_the_requantize():
    network = integer_network()
    network[2], network[3] = network[3], network[2]
    program = program_of(network, (4, 8, 8))
    built = build(program, "qdq")
    assert built.merged == {3, 6}
    written = [node.operator for node in built.graph.nodes]
    assert written.index("QuantizeLinear") < written.index("MaxPool")
    expected, found = both(program, 40)
    assert np.abs(expected - found).max() <= 0.02 * np.abs(expected).max()
    assert np.array_equal(both(program, 40, "exact")[0], both(program, 40, "exact")[1])


def test_the_check_looks_inside_of_patterns(tmp_path, monkeypatch):
    from whit.errors import WhitError
    from whit.export import onnx_build

    network = integer_network()
    network[2], network[3] = network[3], network[2]
    program = program_of(network, (4, 8, 8))
    assert export_onnx(program, tmp_path / "right.onnx", inputs_for(program, 40)).merged == 2
    right = onnx_build.write_max_pool2d
    monkeypatch.setattr(
        onnx_build,
        "write_max_pool2d",
        lambda graph, operator, x, result: right(graph, replace(operator, size=(1, 1)), x, result),
    )
    with pytest.raises(WhitError, match="something else is requantize_3"):
        export_onnx(program, tmp_path / "wrong.onnx", inputs_for(program, 40))


def test_exact_halves_are_never_left_to_the_pattern():
    """A power of two as the factor makes halves common: half up there, half to even in QDQ."""
    steps = [
        Linear(weight("int8", 5, 20, low=-9, high=9), None),
        Requantize(np.array([1 << 20], np.int32), None, 21, -128, 127),
    ]
    program = program_of(steps, (20,), "uint8")
    assert build(program, "qdq").merged == set()
    expected, found = both(program, 50)
    assert np.array_equal(expected, found)


def test_requantize_of_channels_that_are_no_rows_of_the_weight():
    factors = np.array([301, 507, 1001], np.int32)
    steps = [
        Linear(weight("int8", 3, 20, low=-90, high=90), None),
        Requantize(factors, np.array([5, -9, 70], np.int32), 20, -128, 127),
    ]
    program = program_of(steps, (3, 20), "uint8")
    assert build(program, "qdq").merged == set()
    expected, found = both(program, 50)
    assert np.array_equal(expected, found)
    scalar = replace(steps[1], multipliers=factors[:1], bias=None)
    program = program_of([steps[0], scalar], (3, 20), "uint8")
    assert build(program, "qdq").merged == {1}
    expected, found = both(program, 50)
    assert np.abs(expected - found).max() <= 1


def test_sums_that_two_operators_read_stay_exact():
    steps = [
        (Linear(weight("int8", 5, 20, low=-90, high=90), None), 0),
        (Requantize(np.array([333], np.int32), None, 20, -128, 127), 1),
        (Add(), 1, 2),
    ]
    program = program_of(steps, (20,), "uint8")
    assert build(program, "qdq").merged == set()
    expected, found = both(program, 50)
    assert np.array_equal(expected, found)


@pytest.mark.parametrize("first", [Quantize(0, 1, 0, 255), Quantize(0, 1, -128, 127)])
def test_x86_kernels_cannot_saturate(first):
    """255 * 127 + 255 * 127 passes 16 bits, where uint8 times int8 is summed without VNNI."""
    steps = [
        first,
        Linear(StoredWeight(NAMES["int8"], np.full((4, 64), 127, np.int8)), None),
        Requantize(np.array([1001], np.int32), None, 23, 0, 255),
    ]
    program = program_of(steps, (64,))
    for quantized in ("qdq", "exact"):
        model = model_of(program, build(program, quantized))
        x = np.full((1, 64), 255, np.float32)
        (found,) = session_of(model.SerializeToString()).run(["output"], {"input": x})
        assert np.array_equal(found, program(x))
