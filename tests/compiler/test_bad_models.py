"""Damaged, hostile and exotic models give one clear sentence or a right result, in little time and
memory."""

import resource
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import AttributeProto, TensorProto, helper, numpy_helper

from gateformer.cli.main import main
from gateformer.compiler.importer import ImportedModel, evaluate, import_model
from gateformer.compiler.reference import reference_session
from gateformer.spec.errors import ModelError

FLOAT = TensorProto.FLOAT
SHAPE = [1, 4, 8]
WEIGHT = np.linspace(-1, 1, 64, dtype=np.float32).reshape(8, 8)

Nodes = Sequence[onnx.NodeProto]
node = helper.make_node


def build(
    nodes: Nodes,
    weights: dict[str, np.ndarray] | None = None,
    *,
    output: str = "y",
    shape: Sequence[int] = SHAPE,
    kind: int = FLOAT,
    result: int | None = None,
    opset: int = 17,
) -> onnx.ModelProto:
    """A model from input x [shape] to `output`."""
    graph = helper.make_graph(
        nodes,
        "bad",
        [helper.make_tensor_value_info("x", kind, shape)],
        [helper.make_tensor_value_info(output, result or kind, None)],
        [numpy_helper.from_array(array, name) for name, array in (weights or {}).items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


@pytest.fixture
def read(tmp_path: Path) -> Callable[[onnx.ModelProto], ImportedModel]:
    def write_and_read(model: onnx.ModelProto) -> ImportedModel:
        (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
        return import_model(tmp_path / "model.onnx")

    return write_and_read


Read = Callable[[onnx.ModelProto], ImportedModel]


def refusal(read: Read, model: onnx.ModelProto) -> str:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ModelError) as caught:
        read(model)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 900_000, f"{grown} KiB for a model that is refused"
    message = str(caught.value)
    assert message and "\n" not in message and len(message) < 400
    return message


def check(path: Path, model: ImportedModel, x: np.ndarray) -> None:
    """The imported nodes compute what onnxruntime does."""
    tensors = {**model.constants, "x": x}
    for record in model.nodes:
        outputs = evaluate(record, tensors, model.opset)
        tensors |= dict(zip(record.outputs, outputs, strict=True))
    session = reference_session(path)
    for name, expected in zip(model.outputs, session.run(None, {"x": x}), strict=True):
        np.testing.assert_allclose(tensors[name], expected, rtol=1e-4, atol=1e-5)


# --------------------------------------------------------------------------------- the graph


def test_cycle(read: Read) -> None:
    model = build([node("Add", ["x", "b"], ["a"], "first"), node("Relu", ["a"], ["b"])], output="b")
    assert "'first'" in (message := refusal(read, model)) and "cycle" in message


def test_a_node_that_reads_itself(read: Read) -> None:
    assert "cycle" in refusal(read, build([node("Add", ["x", "y"], ["y"])]))


def test_nodes_out_of_order_are_sorted(read: Read, tmp_path: Path) -> None:
    model = read(
        build(
            [
                node("Add", ["c", "a"], ["y"]),
                node("Relu", ["b"], ["c"]),
                node("Neg", ["x"], ["a"]),
                node("Abs", ["a"], ["b"]),
            ]
        )
    )
    assert [record.operator for record in model.nodes] == ["Neg", "Abs", "Relu", "Add"]
    check(tmp_path / "model.onnx", _in_order(tmp_path, model), np.ones(SHAPE, np.float32))


def _in_order(tmp_path: Path, model: ImportedModel) -> ImportedModel:
    """Writes the nodes in order, since onnxruntime asks for that."""
    ordered = build([record.proto for record in model.nodes])
    (tmp_path / "model.onnx").write_bytes(ordered.SerializeToString())
    return model


def test_a_name_nothing_computes(read: Read) -> None:
    assert "nobody" in refusal(read, build([node("Add", ["x", "nobody"], ["y"])]))


def test_two_nodes_that_compute_one_name(read: Read) -> None:
    model = build([node("Relu", ["x"], ["y"]), node("Abs", ["x"], ["y"], "second")])
    assert "'second'" in refusal(read, model)


def test_a_node_that_computes_a_weight(read: Read) -> None:
    assert "valid" in refusal(read, build([node("Relu", ["x"], ["y"])], {"y": WEIGHT}))


def test_two_weights_of_one_name(read: Read) -> None:
    model = build([node("MatMul", ["x", "w"], ["y"])], {"w": WEIGHT})
    model.graph.initializer.append(model.graph.initializer[0])
    assert "two weights of the name 'w'" in refusal(read, model)


def test_nodes_of_one_name_are_told_apart(read: Read) -> None:
    model = read(build([node("Neg", ["x"], ["a"], "n"), node("Abs", ["a"], ["y"], "n")]))
    assert len({record.name for record in model.nodes}) == 2


def test_an_output_that_nothing_computes(read: Read) -> None:
    assert "nobody" in refusal(read, build([node("Relu", ["x"], ["y"])], output="nobody"))


@pytest.mark.parametrize("opset", [7, 99])
def test_opsets(read: Read, opset: int) -> None:
    assert f"opset {opset}" in refusal(read, build([node("Relu", ["x"], ["y"])], opset=opset))


def test_a_custom_domain(read: Read) -> None:
    model = build([node("Thing", ["x"], ["y"], "odd", domain="acme")])
    model.opset_import.append(helper.make_opsetid("acme", 1))
    assert "'odd'" in (message := refusal(read, model)) and "'acme'" in message


def test_a_local_function_that_calls_itself(read: Read) -> None:
    model = build([node("F", ["x"], ["y"], domain="local")])
    opsets = [helper.make_opsetid("local", 1)]
    body = [helper.make_node("F", ["a"], ["b"], domain="local")]
    model.functions.append(helper.make_function("local", "F", ["a"], ["b"], body, opsets))
    model.opset_import.append(helper.make_opsetid("local", 1))
    refusal(read, model)


@pytest.mark.parametrize("operator", ["MatMulInteger", "DynamicQuantizeLinear", "QLinearMatMul"])
def test_integer_operators_are_refused_with_advice(read: Read, operator: str) -> None:
    message = refusal(read, build([node(operator, ["x"], ["y"], "odd")]))
    assert "'odd'" in message and "QDQ" in message


def test_training_nodes(read: Read) -> None:
    ratio, mode = np.array(0.5, np.float32), np.array(True)
    dropout = node("Dropout", ["x", "r", "t"], ["y"], "drop")
    assert "'drop'" in refusal(read, build([dropout], {"r": ratio, "t": mode}))
    message = refusal(read, build([node("RandomNormalLike", ["x"], ["y"], "noise")]))
    assert "evaluation mode" in message


# --------------------------------------------------------------------------------- the file


def test_every_truncation_is_refused(read: Read, tmp_path: Path) -> None:
    content = build([node("MatMul", ["x", "w"], ["y"])], {"w": WEIGHT}).SerializeToString()
    path = tmp_path / "cut.onnx"
    for size in range(0, len(content), 7):
        path.write_bytes(content[:size])
        with pytest.raises(ModelError):
            import_model(path)


def test_random_bytes_and_damaged_files(tmp_path: Path) -> None:
    """Every single damaged byte is refused, or harmless: an array, a name, a description."""
    random = np.random.default_rng(5)
    path = tmp_path / "random.onnx"
    for size in (1, 10, 100, 1000, 10000):
        path.write_bytes(random.bytes(size))
        with pytest.raises(ModelError):
            import_model(path)
    nodes = [
        node("MatMul", ["x", "w"], ["a"]),
        node("Reshape", ["a", "s"], ["b"]),
        node("Transpose", ["b"], ["y"], perm=[1, 0]),
    ]
    content = build(nodes, {"w": WEIGHT, "s": ints(4, 8)}).SerializeToString()
    refused = 0
    for _ in range(300):
        damaged = bytearray(content)
        damaged[random.integers(len(content))] = random.integers(256)
        path.write_bytes(damaged)
        try:
            import_model(path)
        except ModelError as error:
            refused += 1
            assert "\n" not in str(error)
    assert 50 < refused < 300


def test_external_data(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    model = build([node("MatMul", ["x", "w"], ["y"])], {"w": WEIGHT})
    onnx.save(model, path, save_as_external_data=True, location="data.bin", size_threshold=0)
    check(path, import_model(path), np.ones(SHAPE, np.float32))
    (tmp_path / "data.bin").write_bytes(WEIGHT.tobytes()[:-4])
    with pytest.raises(ModelError, match="external data"):
        import_model(path)
    (tmp_path / "data.bin").unlink()
    with pytest.raises(ModelError, match="external data"):
        import_model(path)


@pytest.mark.parametrize("place", ["../outside.bin", "/etc/hostname", "", "."])
def test_external_data_outside_the_folder(tmp_path: Path, place: str) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "outside.bin").write_bytes(WEIGHT.tobytes())
    model = build([node("MatMul", ["x", "w"], ["y"])], {"w": WEIGHT})
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.append(onnx.StringStringEntryProto(key="location", value=place))
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match="external data"):
        import_model(folder / "model.onnx")


# --------------------------------------------------------------------------------- sizes

HUGE = [
    (node("ConstantOfShape", ["s"], ["c"]), {"s": ints(1 << 40)}),
    (node("ConstantOfShape", ["s"], ["c"]), {"s": ints(1 << 20, 1 << 20, 1 << 20, 1 << 20)}),
    (node("Expand", ["v", "s"], ["c"]), {"v": np.ones(1, np.float32), "s": ints(1 << 40)}),
    (node("Tile", ["v", "s"], ["c"]), {"v": np.ones(3, np.float32), "s": ints(1 << 40)}),
    (node("Tile", ["v", "s"], ["c"]), {"v": np.ones(1024, np.float32), "s": ints(1 << 54)}),
    (
        node("Range", ["a", "b", "d"], ["c"]),
        {"a": np.array(0), "b": np.array(1 << 40), "d": np.array(1)},
    ),
    (
        node("Range", ["a", "b", "d"], ["c"]),
        {
            name: np.array(value, np.float32)
            for name, value in zip("abd", (0, 1e30, 1), strict=True)
        },
    ),
    (
        node("Pad", ["v", "s"], ["c"]),
        {"v": np.ones(3, np.float32), "s": ints(0, 1 << 40)},
    ),
    (
        node("OneHot", ["v", "s", "o"], ["c"]),
        {"v": ints(1, 2), "s": ints(1 << 40), "o": np.array([0, 1], np.float32)},
    ),
    (node("HannWindow", ["s"], ["c"]), {"s": np.array(1 << 40)}),
    (
        node("Resize", ["v", "", "", "s"], ["c"]),
        {"v": np.ones((1, 1, 3), np.float32), "s": ints(1, 1, 1 << 40)},
    ),
    (node("MatMul", ["v", "s"], ["c"]), {"v": np.ones((9000, 1)), "s": np.ones((1, 9000))}),
]


@pytest.mark.parametrize("which", range(len(HUGE)))
def test_constants_beyond_memory(read: Read, which: int) -> None:
    maker, weights = HUGE[which]
    maker.name = "big"
    refusal(read, build([maker, node("Add", ["x", "c"], ["y"])], weights))


def test_constants_that_grow_step_by_step(read: Read) -> None:
    nodes = [node("Concat", [f"c{i}"] * 4, [f"c{i + 1}"], axis=0) for i in range(40)]
    refusal(read, build([*nodes, node("Add", ["x", "c40"], ["y"])], {"c0": WEIGHT}))


def test_values_beyond_memory(read: Read) -> None:
    weights = {"s": ints(1 << 30, 4, 8)}
    assert "'big'" in refusal(read, build([node("Expand", ["x", "s"], ["y"], "big")], weights))
    assert "'x'" in refusal(read, build([node("Relu", ["x"], ["y"])], shape=[1, 1 << 40]))
    message = refusal(read, build([node("Relu", ["x"], ["y"])], shape=[1, 1 << 40, 1 << 40]))
    assert "'x'" in message


def test_a_declared_weight_without_its_data(read: Read) -> None:
    model = build([node("MatMul", ["x", "w"], ["y"])], {"w": WEIGHT})
    for dims in ([1 << 40], [1 << 62, 4], [8, 9], [-8, 8], [-1, 8], [0, 8]):
        del model.graph.initializer[0].dims[:]
        model.graph.initializer[0].dims.extend(dims)
        refusal(read, model)


def test_shapes_that_overflow(read: Read) -> None:
    half = ints(1 << 62)
    nodes = [
        node("Mul", ["h", "f"], ["s"]),
        node("Concat", ["s", "h"], ["t"], axis=0),
        node("Reshape", ["x", "t"], ["y"]),
    ]
    refusal(read, build(nodes, {"h": half, "f": ints(3)}))
    refusal(read, build([node("Reshape", ["x", "h"], ["y"])], {"h": ints(1 << 62, 4, 2)}))
    refusal(read, build([node("Reshape", ["x", "h"], ["y"])], {"h": ints(-2, 16)}))


@pytest.mark.parametrize("shape", [[1, 0, 8], [0], [1, -3, 8], [3, 4, 8]])
def test_input_shapes(read: Read, shape: list[int]) -> None:
    message = refusal(read, build([node("Relu", ["x"], ["y"])], shape=shape))
    assert "'x'" in message


def test_empty_results(read: Read) -> None:
    weights = {"a": ints(2), "b": ints(2), "c": ints(1)}
    model = build([node("Slice", ["x", "a", "b", "c"], ["y"], "cut")], weights)
    assert "'cut'" in refusal(read, model)


def test_empty_constants_are_fine(read: Read, tmp_path: Path) -> None:
    weights = {"e": np.zeros(0, np.int64), "s": ints(1, 32)}
    nodes = [node("Concat", ["e", "s"], ["t"], axis=0), node("Reshape", ["x", "t"], ["y"])]
    check(tmp_path / "model.onnx", read(build(nodes, weights)), np.ones(SHAPE, np.float32))


def test_sizes_that_depend_on_data(read: Read) -> None:
    model = build([node("NonZero", ["x"], ["y"], "find")], result=TensorProto.INT64)
    assert "'find'" in refusal(read, model)


MISFITS = [
    (node("Gemm", ["x", "w"], ["y"], "odd"), np.ones((7, 5)), None),
    (node("Gemm", ["x", "w", "b"], ["y"], "odd"), np.ones((8, 5)), np.ones(4)),
    (node("Reshape", ["x", "w"], ["y"], "odd"), ints(5, 7), None),
    (node("Gather", ["x", "w"], ["y"], "odd"), ints(4), None),
    (node("LayerNormalization", ["x", "w"], ["y"], "odd"), np.ones(9), None),
    (node("MatMul", ["x", "w"], ["y"], "odd"), np.ones((9, 8)), None),
    (node("Transpose", ["x"], ["y"], "odd", perm=[0, 0]), np.ones(1), None),
]


@pytest.mark.parametrize("which", range(len(MISFITS)))
def test_operands_that_do_not_fit(read: Read, which: int) -> None:
    maker, weight, bias = MISFITS[which]
    arrays = {"w": weight} if bias is None else {"w": weight, "b": bias}
    weights = {n: a.astype(np.float32) if a.dtype.kind == "f" else a for n, a in arrays.items()}
    assert "odd" in refusal(read, build([maker], weights, shape=[4, 8]))


def test_patches_of_other_channels(read: Read) -> None:
    conv = node("Conv", ["x", "w"], ["y"], "odd", strides=[2, 2])
    weights = {"w": np.ones((5, 2, 2, 2), np.float32)}
    assert "'odd'" in refusal(read, build([conv], weights, shape=[1, 3, 6, 6]))


# --------------------------------------------------------------------------------- types


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_other_floats_become_float32(read: Read, tmp_path: Path, dtype: type) -> None:
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    nodes = [
        node("Constant", [], ["c"], value=numpy_helper.from_array(np.full(8, 0.5, dtype))),
        node("Cast", ["x"], ["f"], to=FLOAT),
        node("Softmax", ["f"], ["p"]),
        node("Cast", ["p"], ["h"], to=kind),
        node("MatMul", ["h", "w"], ["m"]),
        node("Add", ["m", "c"], ["y"]),
    ]
    model = read(build(nodes, {"w": WEIGHT.astype(dtype)}, kind=kind))
    assert {value.dtype for value in model.values.values()} == {np.dtype(np.float32)}
    assert model.constants["w"].dtype == np.float32
    x = np.random.default_rng(1).normal(size=SHAPE).astype(np.float32)
    check(tmp_path / "model.onnx", model, x)


def test_bfloat16_weights(read: Read) -> None:
    model = build([node("MatMul", ["x", "w"], ["y"])], {"w": WEIGHT})
    raw = (WEIGHT.view(np.uint32) >> 16).astype(np.uint16)
    model.graph.initializer[0].CopyFrom(
        helper.make_tensor("w", TensorProto.BFLOAT16, [8, 8], raw.tobytes(), raw=True)
    )
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.BFLOAT16
    expected = (raw.astype(np.uint32) << 16).view(np.float32)
    np.testing.assert_array_equal(read(model).constants["w"], expected)


def test_the_least_double_stays_finite(read: Read) -> None:
    mask = np.array([np.finfo(np.float64).min] * 8)
    model = build([node("Add", ["x", "m"], ["y"])], {"m": mask}, kind=TensorProto.DOUBLE)
    assert (read(model).constants["m"] == np.finfo(np.float32).min).all()


def test_infinity_is_for_masks(read: Read) -> None:
    mask = np.full(8, -np.inf, np.float32)
    assert "m" in read(build([node("Add", ["x", "m"], ["y"])], {"m": mask})).constants
    message = refusal(read, build([node("Mul", ["x", "m"], ["y"])], {"m": mask}))
    assert "'m' holds NaN or infinity" in message
    message = refusal(read, build([node("Add", ["x", "m"], ["y"])], {"m": mask * np.nan}))
    assert "'m' holds NaN" in message


def test_images_of_bytes(read: Read, tmp_path: Path) -> None:
    nodes = [node("Cast", ["x"], ["f"], to=FLOAT), node("MatMul", ["f", "w"], ["y"])]
    model = read(build(nodes, {"w": WEIGHT}, kind=TensorProto.UINT8, result=FLOAT))
    x = np.arange(32, dtype=np.uint8).reshape(SHAPE)
    check(tmp_path / "model.onnx", model, x)


@pytest.mark.parametrize("kind", [TensorProto.STRING, TensorProto.COMPLEX64, TensorProto.UNDEFINED])
def test_inputs_that_are_no_numbers(read: Read, kind: int) -> None:
    model = build([node("Identity", ["x"], ["y"])])
    model.graph.input[0].type.tensor_type.elem_type = kind
    refusal(read, model)


def test_text(read: Read) -> None:
    model = build([node("Constant", [], ["y"], "text", value_string="hello")])
    assert "text" in refusal(read, model)
    model = build([node("Cast", ["x"], ["y"], "write", to=TensorProto.STRING)])
    assert "'write'" in refusal(read, model)


def test_sequences_and_optionals(read: Read) -> None:
    model = build(
        [node("SequenceConstruct", ["x", "x"], ["s"], "list"), node("SequenceLength", ["s"], ["y"])]
    )
    assert "'list'" in refusal(read, model)
    model = build(
        [node("Optional", ["x"], ["o"], "maybe"), node("OptionalHasElement", ["o"], ["y"])]
    )
    assert "'maybe'" in refusal(read, model)
    model = build([node("Relu", ["x"], ["y"])])
    kind = helper.make_sequence_type_proto(helper.make_tensor_type_proto(FLOAT, [1]))
    model.graph.input[0].type.CopyFrom(kind)
    assert "'x' is no tensor" in refusal(read, model)


def test_sparse_weights(read: Read) -> None:
    model = build([node("MatMul", ["x", "w"], ["y"])])
    values = numpy_helper.from_array(np.ones(2, np.float32), "w")
    places = numpy_helper.from_array(ints(0, 9), "places")
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, places, [8, 8]))
    assert "'w' is sparse" in refusal(read, model)


# --------------------------------------------------------------------------------- control flow


def _branch(operator: str) -> onnx.GraphProto:
    nodes = [node(operator, ["x"], ["t"]), node("Add", ["t", "k"], ["r"])]
    result = [helper.make_tensor_value_info("r", FLOAT, None)]
    scalar = numpy_helper.from_array(np.array(2, np.float32), "k")
    return helper.make_graph(nodes, operator, [], result, [scalar])


@pytest.mark.parametrize("condition", [True, False])
def test_a_known_condition_takes_its_branch(read: Read, tmp_path: Path, condition: bool) -> None:
    branches = {"then_branch": _branch("Relu"), "else_branch": _branch("Neg")}
    nodes = [node("If", ["c"], ["y"], "choose", **branches)]
    model = read(build(nodes, {"c": np.array(condition)}))
    assert model.nodes[0].operator == ("Relu" if condition else "Neg")
    check(tmp_path / "model.onnx", model, np.linspace(-1, 1, 32, dtype=np.float32).reshape(SHAPE))


def test_an_unknown_condition(read: Read) -> None:
    branches = {"then_branch": _branch("Relu"), "else_branch": _branch("Neg")}
    nodes = [
        node("ReduceMax", ["x"], ["m"], keepdims=0),
        node("Cast", ["m"], ["c"], to=TensorProto.BOOL),
        node("If", ["c"], ["y"], "choose", **branches),
    ]
    assert "'choose'" in refusal(read, build(nodes))


def test_loops(read: Read) -> None:
    body = helper.make_graph(
        [node("Identity", ["c"], ["d"]), node("Relu", ["v"], ["w"])],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("c", TensorProto.BOOL, []),
            helper.make_tensor_value_info("v", FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("d", TensorProto.BOOL, []),
            helper.make_tensor_value_info("w", FLOAT, None),
        ],
    )
    weights = {"n": np.array(1 << 40), "c": np.array(True)}
    for start, extra in (("x", {}), ("v0", {"v0": WEIGHT})):
        loop = node("Loop", ["n", "c", start], ["y"], "again", body=body)
        assert "'again'" in refusal(read, build([loop], {**weights, **extra}))


def test_subgraphs_nested_deeply(read: Read) -> None:
    graph = _branch("Relu")
    for level in range(30):
        value = numpy_helper.from_array(np.array(True))
        inner = [
            node("Constant", [], [f"c{level}"], value=value),
            node("If", [f"c{level}"], ["r"], then_branch=graph, else_branch=graph),
        ]
        if level > 8:
            inner[1].ClearField("attribute")
            inner[1].attribute.append(helper.make_attribute("then_branch", graph))
            inner[1].attribute.append(helper.make_attribute("else_branch", _branch("Neg")))
        graph = helper.make_graph(inner, "g", [], [helper.make_tensor_value_info("r", FLOAT, None)])
    branches = {"then_branch": graph, "else_branch": _branch("Neg")}
    model = build([node("If", ["c"], ["y"], **branches)], {"c": np.array(True)})
    assert read(model).nodes[0].operator == "Relu"


def test_an_attribute_of_a_wrong_type(read: Read) -> None:
    transpose = node("Transpose", ["x"], ["y"], "turn")
    transpose.attribute.append(AttributeProto(name="perm", type=AttributeProto.FLOAT, f=1.0))
    refusal(read, build([transpose]))


# --------------------------------------------------------------------------------- command line


@pytest.mark.parametrize("kind", ["bytes", "cycle", "huge"])
def test_the_command_line_says_it_in_one_line(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = {
        "bytes": b"\x0a\xff\xff\xff\x0f" * 9,
        "cycle": build([node("Add", ["x", "y"], ["y"])]).SerializeToString(),
        "huge": build([node("Relu", ["x"], ["y"])], shape=[1, 1 << 40]).SerializeToString(),
    }[kind]
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    arguments = ["compile", str(path), "--calibration", "none.npz", "--config", "tiny"]
    assert main([*arguments, "-o", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert error.startswith("gateformer: error: ") and error.count("\n") == 1
    assert not (tmp_path / "out").exists()
