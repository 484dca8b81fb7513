//! Shape inference: every operation and every tensor of a graph is checked before anything runs.

use super::{
    graph::{Edges, Graph, MAX_ACTIVATION, MAX_NODES, Node, Op, Shape, ValueId, Window},
    weights::{Weights, WeightsError},
};

/// Kernel sides, strides and paddings, at most.
const MAX_WINDOW: usize = 64;
/// Multiplications for one image, at most: IResNet-100 has 1.2e10, and a thousand layers of a kilobyte more than a day of them.
const MAX_WORK: u64 = 1_000_000_000_000;
/// Values of what is repeated or filled with zeros, at most, and channels: it costs a file nothing to ask for them. Features that are
/// divided by their length have some hundreds.
const MAX_MADE: usize = 16 << 20;
const MAX_MADE_CHANNELS: usize = 64 << 10;

/// Why a graph cannot run. Nodes count from 0.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GraphError {
    #[error("a graph has 1 to {MAX_NODES} nodes, this has {0}")]
    Nodes(usize),
    #[error("the output, value {0}, does not exist")]
    Output(ValueId),
    #[error("node {node} ({op}): {fault}")]
    Node { node: usize, op: &'static str, fault: Fault },
    #[error("step {step} ({action}, of {parts}): its weights are not finite once they are folded into each other")]
    NotFinite { step: usize, action: String, parts: String },
    #[error("the input's shape {0} is empty or too large")]
    Input(Shape),
    #[error("the network needs more than {MAX_WORK} multiplications for an image: no network for faces needs a tenth")]
    Work,
}

/// What is wrong with a node.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    #[error("takes {expected} operands, has {got}")]
    Operands { expected: usize, got: usize },
    #[error("operand {0} is not computed before it")]
    Order(ValueId),
    #[error("kernel sides and strides are 1 to {MAX_WINDOW}, padding at most {MAX_WINDOW} and less than the kernel")]
    Window,
    #[error("the kernel is larger than the padded input {0}")]
    Kernel(Shape),
    #[error("{groups} groups do not divide {channels} channels")]
    Groups { groups: usize, channels: usize },
    #[error("tensor {name} has shape {got:?}, expected {expected:?}")]
    Weight { name: String, expected: Vec<usize>, got: Vec<usize> },
    #[error(transparent)]
    Weights(#[from] WeightsError),
    #[error("operands have shapes {0} and {1}, expected equal ones")]
    Unequal(Shape, Shape),
    #[error("takes a vector, got {0}")]
    NotVector(Shape),
    #[error("takes one channel, got {0}")]
    Channels(Shape),
    #[error("a slope must be finite")]
    Slope,
    #[error("bounds must be finite, the lower not above the higher")]
    Bounds,
    #[error("the result is empty or larger than {MAX_ACTIVATION} values")]
    Size,
    #[error(
        "{0}: what is repeated or filled with zeros has at most {MAX_MADE_CHANNELS} channels, {MAX_MADE} values in all"
    )]
    Made(Shape),
}

impl Graph {
    /// Infers the shape of every value (value 0 first) and checks every operation and tensor on the way. What comes
    /// back without an error, an executor can run without a check.
    pub fn shapes(&self, weights: &Weights) -> Result<Vec<Shape>, GraphError> {
        if self.nodes.is_empty() || self.nodes.len() > MAX_NODES {
            return Err(GraphError::Nodes(self.nodes.len()));
        }
        if self.output > self.nodes.len() {
            return Err(GraphError::Output(self.output));
        }
        self.input.elements().ok_or(GraphError::Input(self.input))?;
        let (mut shapes, mut work) = (vec![self.input], 0u64);
        for (index, node) in self.nodes.iter().enumerate() {
            let shape = node
                .shape(&shapes, weights)
                .and_then(|shape| shape.elements().map(|_| shape).ok_or(Fault::Size))
                .map_err(|fault| GraphError::Node { node: index, op: node.op.name(), fault })?;
            work = work.saturating_add(node.work(shape, weights));
            if work > MAX_WORK {
                return Err(GraphError::Work);
            }
            shapes.push(shape);
        }
        Ok(shapes)
    }
}

impl Node {
    /// Multiplications, or what takes as long, for one image; `out` is the shape of what it gives.
    fn work(&self, out: Shape, weights: &Weights) -> u64 {
        let parameters = |name: &String| weights.get(name).map_or(0, |weight| weight.values().len());
        let (times, each) = match &self.op {
            Op::Convolution { weight, .. } | Op::FullyConnected { weight, .. } => {
                (out.height.saturating_mul(out.width), parameters(weight))
            }
            Op::MaxPool { window, .. } | Op::AveragePool { window } => {
                (out.elements().unwrap_or(0), window.height * window.width)
            }
            _ => (out.elements().unwrap_or(0), 1),
        };
        (times as u64).saturating_mul(each as u64)
    }

    /// The shape of what it gives, from those of the values before it.
    pub(super) fn shape(&self, shapes: &[Shape], weights: &Weights) -> Result<Shape, Fault> {
        let expected = if matches!(self.op, Op::Add | Op::Multiply | Op::Divide) { 2 } else { 1 };
        if self.inputs.len() != expected {
            return Err(Fault::Operands { expected, got: self.inputs.len() });
        }
        let operand = |i: usize| shapes.get(self.inputs[i]).copied().ok_or(Fault::Order(self.inputs[i]));
        let x = operand(0)?;
        let vector = |name: &String, len: usize| expect(weights, name, &[len]);
        match &self.op {
            Op::Convolution { weight, bias, window, padding, groups } => {
                if *groups == 0 || x.channels % groups != 0 {
                    return Err(Fault::Groups { groups: *groups, channels: x.channels });
                }
                let out = weights.get(weight)?.shape().first().copied().unwrap_or(0);
                if out % groups != 0 {
                    return Err(Fault::Groups { groups: *groups, channels: out });
                }
                expect(weights, weight, &[out, x.channels / groups, window.height, window.width])?;
                bias.iter().try_for_each(|bias| vector(bias, out))?;
                slide(Shape { channels: out, ..x }, *window, *padding)
            }
            Op::Affine { scale, shift } => {
                vector(scale, x.channels)?;
                vector(shift, x.channels).map(|()| x)
            }
            Op::Relu | Op::Sigmoid | Op::Sqrt | Op::Reciprocal => Ok(x),
            Op::Clip { low, high } => {
                (low.is_finite() && low <= high && high.is_finite()).then_some(x).ok_or(Fault::Bounds)
            }
            Op::LeakyRelu { slope } => slope.is_finite().then_some(x).ok_or(Fault::Slope),
            Op::PRelu { slope } => vector(slope, x.channels).map(|()| x),
            Op::Add | Op::Divide => operand(1).and_then(|y| if x == y { Ok(x) } else { Err(Fault::Unequal(x, y)) }),
            Op::Multiply => operand(1).and_then(|y| match y {
                y if x == y || y == Shape::new(x.channels, 1, 1) => Ok(x),
                y => Err(Fault::Unequal(x, y)),
            }),
            Op::SumChannels | Op::L2Norm => Ok(Shape { channels: 1, ..x }),
            Op::RepeatChannel { .. } if x.channels != 1 => Err(Fault::Channels(x)),
            Op::RepeatChannel { channels } => made(Shape { channels: *channels, ..x }),
            Op::MaxPool { window, padding } => slide(x, *window, *padding),
            Op::AveragePool { window } => slide(x, *window, Edges::NONE),
            Op::GlobalAveragePool => Ok(Shape::new(x.channels, 1, 1)),
            Op::PadChannels { count } => {
                made(Shape { channels: x.channels.checked_add(*count).ok_or(Fault::Size)?, ..x })
            }
            Op::PadSpatial { edges } => pad(x, *edges),
            Op::Flatten => Ok(Shape::new(x.elements().ok_or(Fault::Size)?, 1, 1)),
            Op::FullyConnected { weight, bias } => {
                if !x.is_vector() {
                    return Err(Fault::NotVector(x));
                }
                let out = weights.get(weight)?.shape().first().copied().unwrap_or(0);
                expect(weights, weight, &[out, x.channels])?;
                bias.iter().try_for_each(|bias| vector(bias, out))?;
                Ok(Shape::new(out, 1, 1))
            }
        }
    }
}

fn expect(weights: &Weights, name: &str, expected: &[usize]) -> Result<(), Fault> {
    let got = weights.get(name)?.shape();
    if got == expected {
        return Ok(());
    }
    Err(Fault::Weight { name: name.into(), expected: expected.into(), got: got.into() })
}

/// Within [`MAX_MADE`] and [`MAX_MADE_CHANNELS`].
fn made(shape: Shape) -> Result<Shape, Fault> {
    let fits = shape.channels <= MAX_MADE_CHANNELS && shape.elements().is_some_and(|n| n <= MAX_MADE);
    fits.then_some(shape).ok_or(Fault::Made(shape))
}

fn pad(x: Shape, edges: Edges) -> Result<Shape, Fault> {
    if [edges.top, edges.left, edges.bottom, edges.right].iter().any(|&n| n > MAX_WINDOW) {
        return Err(Fault::Window);
    }
    Ok(Shape::new(x.channels, x.height + edges.top + edges.bottom, x.width + edges.left + edges.right))
}

fn slide(x: Shape, window: Window, padding: Edges) -> Result<Shape, Fault> {
    let sides = [window.height, window.width, window.stride];
    if sides.iter().any(|side| !(1..=MAX_WINDOW).contains(side)) {
        return Err(Fault::Window);
    }
    // Every window then covers a real pixel.
    if padding.top.max(padding.bottom) >= window.height || padding.left.max(padding.right) >= window.width {
        return Err(Fault::Window);
    }
    let x = pad(x, padding)?;
    if x.height < window.height || x.width < window.width {
        return Err(Fault::Kernel(x));
    }
    let count = |size: usize, kernel: usize| (size - kernel) / window.stride + 1;
    Ok(Shape::new(x.channels, count(x.height, window.height), count(x.width, window.width)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn weights() -> Weights {
        let mut weights = Weights::new();
        weights.insert("w", vec![4, 3, 3, 3], vec![0.0; 108]).unwrap();
        weights.insert("b", vec![4], vec![0.0; 4]).unwrap();
        weights
    }

    fn graph(nodes: Vec<Node>) -> Graph {
        Graph { input: Shape::new(3, 8, 9), output: nodes.len(), nodes }
    }

    fn convolution(window: Window, padding: Edges, groups: usize) -> Node {
        let op = Op::Convolution { weight: "w".into(), bias: Some("b".into()), window, padding, groups };
        Node { op, inputs: vec![0] }
    }

    fn fault(node: Node) -> Fault {
        match graph(vec![node]).shapes(&weights()) {
            Err(GraphError::Node { node: 0, fault, .. }) => fault,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn same_is_tensorflows() {
        let window = Window::square(3, 2);
        assert_eq!(Edges::same(8, 9, window), Edges { top: 0, left: 1, bottom: 1, right: 1 });
        let shapes = graph(vec![convolution(window, Edges::same(8, 9, window), 1)]).shapes(&weights()).unwrap();
        assert_eq!(shapes[1], Shape::new(4, 4, 5));
        assert_eq!(Edges::same(13, 13, Window::square(2, 1)), Edges { bottom: 1, right: 1, ..Edges::NONE });
    }

    #[test]
    fn faults_are_named() {
        let window = Window::square(3, 1);
        assert!(matches!(fault(convolution(window, Edges::NONE, 2)), Fault::Groups { groups: 2, channels: 3 }));
        assert!(matches!(fault(convolution(window, Edges::NONE, 3)), Fault::Groups { groups: 3, channels: 4 }));
        assert!(matches!(fault(convolution(Window::square(5, 1), Edges::NONE, 1)), Fault::Weight { .. }));
        assert_eq!(fault(convolution(window, Edges::all(3), 1)), Fault::Window);
        assert_eq!(fault(convolution(Window::square(3, 0), Edges::NONE, 1)), Fault::Window);
        let node = |op, inputs| Node { op, inputs };
        assert_eq!(fault(node(Op::Relu, vec![1])), Fault::Order(1));
        assert_eq!(fault(node(Op::Relu, vec![])), Fault::Operands { expected: 1, got: 0 });
        assert_eq!(fault(node(Op::PadChannels { count: usize::MAX }, vec![0])), Fault::Size);
        let large = Shape::new(MAX_ACTIVATION + 3, 8, 9);
        assert_eq!(fault(node(Op::PadChannels { count: MAX_ACTIVATION }, vec![0])), Fault::Made(large));
        assert_eq!(fault(node(Op::RepeatChannel { channels: 4 }, vec![0])), Fault::Channels(Shape::new(3, 8, 9)));
        assert_eq!(fault(node(Op::Divide, vec![0])), Fault::Operands { expected: 2, got: 1 });
        assert_eq!(fault(node(Op::LeakyRelu { slope: f32::NAN }, vec![0])), Fault::Slope);
        let missing = Op::PRelu { slope: "none".into() };
        assert!(matches!(fault(node(missing, vec![0])), Fault::Weights(WeightsError::Missing { .. })));
        let full = Op::FullyConnected { weight: "w".into(), bias: None };
        assert!(matches!(fault(node(full, vec![0])), Fault::NotVector(_)));
        assert_eq!(graph(vec![]).shapes(&weights()), Err(GraphError::Nodes(0)));
    }

    #[test]
    fn a_graph_survives_its_text_and_unknown_words_do_not() {
        let graph = graph(vec![convolution(Window::square(3, 1), Edges::all(1), 1)]);
        let text = serde_json::to_string(&graph).unwrap();
        assert_eq!(serde_json::from_str::<Graph>(&text).unwrap(), graph);
        for (from, to) in
            [("convolution", "deconvolution"), ("\"groups\":1", "\"groups\":1,\"dilation\":2"), ("nodes", "nods")]
        {
            assert!(serde_json::from_str::<Graph>(&text.replace(from, to)).is_err(), "{to}");
        }
        assert!(graph.to_string().starts_with("%0 = input 3x8x9\n%1 = convolution(%0)"));
    }
}
