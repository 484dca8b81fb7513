"""ArcFace-shaped networks with seeded random weights, as public checkpoints are exported: exact in shape, and no measure of accuracy.

`as_trained` gives such a network, or one from a file, the statistics that training leaves: a batch norm knows mean and variance
of what it gets, and channels lie from zero by as much as they vary.
"""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 14, 3), 100: (3, 13, 30, 3)}
# Expansion, channels, repeats, first stride.
BOTTLENECKS = ((2, 64, 5, 2), (4, 128, 1, 2), (2, 128, 6, 1), (4, 128, 1, 2), (2, 128, 2, 1))


class Network:
    """Nodes and weights so far; every method appends and returns the name of what it gives."""

    def __init__(self, seed: int = 7):
        self.rng = np.random.default_rng(seed)
        self.nodes, self.weights = [], []

    def weight(self, values) -> str:
        name = f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.ascontiguousarray(values, np.float32), name))
        return name

    def node(self, op: str, inputs, output: str | None = None, **attributes) -> str:
        output = output or f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [output], name=f"{op}_{len(self.nodes)}", **attributes))
        return output

    def convolution(self, x, c_in, c_out, kernel, stride=1, padding=None, groups=1, bias=True) -> str:
        scale = np.sqrt(2.0 * groups / (c_in * kernel * kernel))
        inputs = [x, self.weight(self.rng.standard_normal((c_out, c_in // groups, kernel, kernel)) * scale)]
        if bias:
            inputs.append(self.weight(self.rng.standard_normal(c_out) * 0.05))
        padding = kernel // 2 if padding is None else padding
        sides = {"kernel_shape": [kernel] * 2, "strides": [stride] * 2, "pads": [padding] * 4}
        return self.node("Conv", inputs, group=groups, **sides)

    def batch_norm(self, x, c, output=None) -> str:
        r = self.rng
        parts = (1 + 0.1 * r.standard_normal(c), 0.05 * r.standard_normal(c), 0.05 * r.standard_normal(c), 1 + 0.1 * r.random(c))
        return self.node("BatchNormalization", [x, *map(self.weight, parts)], output, epsilon=1e-5)

    def prelu(self, x, c) -> str:
        return self.node("PRelu", [x, self.weight(0.25 + 0.05 * self.rng.standard_normal((c, 1, 1)))])

    def model(self, name: str, dimension: int) -> onnx.ModelProto:
        inputs = [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["N", 3, 112, 112])]
        outputs = [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["N", dimension])]
        graph = helper.make_graph(self.nodes, name, inputs, outputs, self.weights)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)])
        model.ir_version = 8
        onnx.checker.check_model(model)
        return model


def iresnet(depth: int, width: int = 64) -> onnx.ModelProto:
    """The batch norm before each block's first convolution is kept, the others stand in biases."""
    n = Network()
    x, c_in = n.prelu(n.convolution("input", 3, width, 3), width), width
    for blocks, c in zip(BLOCKS[depth], (width, 2 * width, 4 * width, 8 * width)):
        for i in range(blocks):
            stride = 2 if i == 0 else 1
            shortcut = n.convolution(x, c_in, c, 1, stride, 0) if i == 0 else x
            y = n.prelu(n.convolution(n.batch_norm(x, c_in), c_in, c, 3), c)
            x, c_in = n.node("Add", [n.convolution(y, c, c, 3, stride), shortcut]), c
    x = n.node("Flatten", [n.batch_norm(x, c_in)], axis=1)
    features = c_in * 49
    parts = n.rng.standard_normal((512, features)) / np.sqrt(features), 0.01 * n.rng.standard_normal(512)
    n.batch_norm(n.node("Gemm", [x, *map(n.weight, parts)], transB=1), 512, "embedding")
    return n.model(f"iresnet{depth}", 512)


def mobilefacenet() -> onnx.ModelProto:
    """Depthwise convolutions, and batch norm as nodes after convolutions without bias."""
    n = Network()

    def unit(x, c_in, c, kernel, stride=1, padding=None, groups=1, linear=False):
        y = n.batch_norm(n.convolution(x, c_in, c, kernel, stride, padding, groups, bias=False), c)
        return y if linear else n.prelu(y, c)

    x = unit(unit("input", 3, 64, 3, 2), 64, 64, 3, groups=64)
    c_in = 64
    for expansion, c, repeats, first in BOTTLENECKS:
        for i in range(repeats):
            inner = c_in * expansion
            y = unit(x, c_in, inner, 1)
            y = unit(y, inner, inner, 3, first if i == 0 else 1, groups=inner)
            y = unit(y, inner, c, 1, linear=True)
            x, c_in = (n.node("Add", [x, y]) if i > 0 else y), c
    x = unit(unit(x, c_in, 512, 1), 512, 512, 7, padding=0, groups=512, linear=True)
    x = n.node("Flatten", [n.convolution(x, 512, 128, 1, bias=False)], axis=1)
    n.batch_norm(x, 128, "embedding")
    return n.model("mobilefacenet", 128)


def as_trained(model: onnx.ModelProto, seed: int = 7, images: int = 4) -> onnx.ModelProto:
    """Biases of convolutions move each channel by standard deviations drawn with a spread of 1, every 16th by 3; batch norms of images
    get the mean and the variance of what they then see. Runs the network node by node on pseudo-random images."""
    rng = np.random.default_rng(seed)
    weights = {w.name: w for w in model.graph.initializer}
    feed = model.graph.input[0].name
    values = {feed: rng.integers(0, 256, (images, 3, 112, 112)).astype(np.float32) / 127.5 - 1}

    def put(name: str, array):
        weights[name].CopyFrom(numpy_helper.from_array(np.ascontiguousarray(array, np.float32), name))

    for node in model.graph.node:
        if node.op_type == "BatchNormalization" and values[node.input[0]].ndim == 4:
            x = values[node.input[0]].astype(np.float64)
            put(node.input[3], x.mean((0, 2, 3)))
            put(node.input[4], x.var((0, 2, 3)))
        y = run_node(model, node, weights, values)
        if node.op_type == "Conv" and len(node.input) == 3:
            moved = rng.standard_normal(y.shape[1])
            moved[::16] = 3 * np.sign(moved[::16])
            by = (moved * y.std((0, 2, 3))).astype(np.float32)
            put(node.input[2], numpy_helper.to_array(weights[node.input[2]]) + by)
            y = y + by[:, None, None]
        values[node.output[0]] = y
    return model


def run_node(model: onnx.ModelProto, node, weights, values):
    import onnxruntime as ort

    fed = [name for name in node.input if name in values]
    tensor = lambda name: helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
    constants = [weights[name] for name in node.input if name in weights]
    graph = helper.make_graph([node], "node", list(map(tensor, fed)), [tensor(node.output[0])], constants)
    alone = helper.make_model(graph, opset_imports=model.opset_import)
    alone.ir_version = model.ir_version
    session = ort.InferenceSession(alone.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {name: values[name] for name in fed})[0]


NETWORKS = {
    "iresnet18": lambda: iresnet(18),
    "iresnet34": lambda: iresnet(34),
    "iresnet50": lambda: iresnet(50),
    "iresnet100": lambda: iresnet(100),
    "mobilefacenet": mobilefacenet,
}
