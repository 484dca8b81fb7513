//! How the networks of face-api are wired (its weights' files do not say), from tensors by their names there.

use super::{
    graph::{Edges, Graph, Node, Op, Shape, ValueId, Window},
    shapes::{Fault, GraphError},
    weights::{Weights, WeightsError},
};

/// Why tensors do not make the network.
#[derive(Debug, thiserror::Error)]
pub enum ArchitectureError {
    #[error(transparent)]
    Weights(#[from] WeightsError),
    #[error("tensor {name}: expected {expected} dimensions, got {got}")]
    Rank { name: String, expected: usize, got: usize },
    #[error(transparent)]
    Graph(#[from] GraphError),
    #[error("the network has no use for tensor {0}")]
    Unused(String),
}

/// dlib's face recognition ResNet: 3x150x150 to 128.
pub fn face_recognition(source: &Weights) -> Result<(Graph, Weights), ArchitectureError> {
    let mut net = Builder::new(source, Shape::new(3, 150, 150));
    let x = net.scaled("conv32_down", 0, 2, false)?;
    let x = net.relu(x)?;
    let mut x = net.push(Op::MaxPool { window: Window::square(3, 2), padding: Edges::NONE }, &[x])?;
    for name in ["conv32_1", "conv32_2", "conv32_3"] {
        x = net.residual(x, name)?;
    }
    x = net.residual_down(x, "conv64_down")?;
    for name in ["conv64_1", "conv64_2", "conv64_3"] {
        x = net.residual(x, name)?;
    }
    x = net.residual_down(x, "conv128_down")?;
    for name in ["conv128_1", "conv128_2"] {
        x = net.residual(x, name)?;
    }
    x = net.residual_down(x, "conv256_down")?;
    for name in ["conv256_1", "conv256_2"] {
        x = net.residual(x, name)?;
    }
    x = net.residual_down(x, "conv256_down_out")?;
    x = net.push(Op::GlobalAveragePool, &[x])?;
    let weight = net.take("fc", &[1, 0])?;
    x = net.push(Op::FullyConnected { weight, bias: None }, &[x])?;
    net.finish(x)
}

/// The 68-point landmark network: 3x112x112 to 136, x and y of each point in turn, relative to the input.
pub fn face_landmark_68(source: &Weights) -> Result<(Graph, Weights), ArchitectureError> {
    let mut net = Builder::new(source, Shape::new(3, 112, 112));
    let mut x = 0;
    for block in ["dense0", "dense1", "dense2", "dense3"] {
        x = net.dense_block(x, block)?;
    }
    x = net.push(Op::AveragePool { window: Window::square(7, 2) }, &[x])?;
    x = net.push(Op::Flatten, &[x])?;
    let (weight, bias) = (net.take("fc/weights", &[1, 0])?, Some(net.take("fc/bias", &[0])?));
    x = net.push(Op::FullyConnected { weight, bias }, &[x])?;
    net.finish(x)
}

/// The tiny face detector, a separable tiny YOLOv2: 3x416x416 to 25x13x13 (see [`super::detector`]).
pub fn tiny_face_detector(source: &Weights) -> Result<(Graph, Weights), ArchitectureError> {
    const LEAKY: Op = Op::LeakyRelu { slope: 0.1 };
    let mut net = Builder::new(source, Shape::new(3, 416, 416));
    let mut x = net.convolution(0, "conv0", 1, Same::No)?;
    x = net.push(LEAKY, &[x])?;
    for (name, stride) in [("conv1", 2), ("conv2", 2), ("conv3", 2), ("conv4", 2), ("conv5", 2), ("", 1)] {
        x = net.max_pool_same(x, Window::square(2, stride))?;
        if !name.is_empty() {
            x = net.separable(x, name, 1)?;
            x = net.push(LEAKY, &[x])?;
        }
    }
    x = net.convolution(x, "conv8", 1, Same::No)?;
    net.finish(x)
}

/// TensorFlow's padding: 'same' or 'valid'.
#[derive(Clone, Copy, PartialEq)]
enum Same {
    Yes,
    No,
}

struct Builder<'a> {
    source: &'a Weights,
    weights: Weights,
    nodes: Vec<Node>,
    shapes: Vec<Shape>,
}

impl<'a> Builder<'a> {
    fn new(source: &'a Weights, input: Shape) -> Self {
        Self { source, weights: Weights::new(), nodes: vec![], shapes: vec![input] }
    }

    fn push(&mut self, op: Op, inputs: &[ValueId]) -> Result<ValueId, ArchitectureError> {
        let node = Node { op, inputs: inputs.to_vec() };
        let failed = |fault: Fault| GraphError::Node { node: self.nodes.len(), op: node.op.name(), fault };
        let shape = node.shape(&self.shapes, &self.weights).map_err(failed)?;
        self.nodes.push(node);
        self.shapes.push(shape);
        Ok(self.nodes.len())
    }

    /// Takes a tensor over with its dimensions in another order.
    fn take(&mut self, name: &str, order: &[usize]) -> Result<String, ArchitectureError> {
        let weight = self.source.get(name)?;
        let (expected, got) = (order.len(), weight.shape().len());
        let permuted = weight.permuted(order).ok_or(ArchitectureError::Rank { name: name.into(), expected, got })?;
        self.weights.adopt(name, permuted)?;
        Ok(name.into())
    }

    fn relu(&mut self, x: ValueId) -> Result<ValueId, ArchitectureError> {
        self.push(Op::Relu, &[x])
    }

    /// `filters` is height x width x in x out there.
    fn convolve(
        &mut self,
        x: ValueId,
        filters: &str,
        bias: &str,
        stride: usize,
        same: Same,
    ) -> Result<ValueId, ArchitectureError> {
        let (weight, bias) = (self.take(filters, &[3, 2, 0, 1])?, Some(self.take(bias, &[0])?));
        let (window, padding) = self.window(x, &weight, stride, same)?;
        self.push(Op::Convolution { weight, bias, window, padding, groups: 1 }, &[x])
    }

    fn window(
        &self,
        x: ValueId,
        weight: &str,
        stride: usize,
        same: Same,
    ) -> Result<(Window, Edges), ArchitectureError> {
        let shape = self.weights.get(weight)?.shape();
        let side = |axis: usize| shape.get(axis).copied().unwrap_or(0);
        let window = Window { height: side(2), width: side(3), stride };
        let x = self.shapes[x];
        Ok((window, if same == Same::Yes { Edges::same(x.height, x.width, window) } else { Edges::NONE }))
    }

    fn convolution(&mut self, x: ValueId, name: &str, stride: usize, same: Same) -> Result<ValueId, ArchitectureError> {
        self.convolve(x, &format!("{name}/filters"), &format!("{name}/bias"), stride, same)
    }

    /// Depthwise (height x width x channels x 1 there), then pointwise.
    fn separable(&mut self, x: ValueId, name: &str, stride: usize) -> Result<ValueId, ArchitectureError> {
        let weight = self.take(&format!("{name}/depthwise_filter"), &[2, 3, 0, 1])?;
        let (window, padding) = self.window(x, &weight, stride, Same::Yes)?;
        let groups = self.shapes[x].channels;
        let x = self.push(Op::Convolution { weight, bias: None, window, padding, groups }, &[x])?;
        self.convolve(x, &format!("{name}/pointwise_filter"), &format!("{name}/bias"), 1, Same::No)
    }

    fn max_pool_same(&mut self, x: ValueId, window: Window) -> Result<ValueId, ArchitectureError> {
        let padding = Edges::same(self.shapes[x].height, self.shapes[x].width, window);
        self.push(Op::MaxPool { window, padding }, &[x])
    }

    /// A convolution and dlib's scale layer, which is a batch norm at rest.
    fn scaled(&mut self, name: &str, x: ValueId, stride: usize, same: bool) -> Result<ValueId, ArchitectureError> {
        let same = if same { Same::Yes } else { Same::No };
        let (filters, bias) = (format!("{name}/conv/filters"), format!("{name}/conv/bias"));
        let y = self.convolve(x, &filters, &bias, stride, same)?;
        let scale = self.take(&format!("{name}/scale/weights"), &[0])?;
        let shift = self.take(&format!("{name}/scale/biases"), &[0])?;
        self.push(Op::Affine { scale, shift }, &[y])
    }

    fn residual(&mut self, x: ValueId, name: &str) -> Result<ValueId, ArchitectureError> {
        let y = self.scaled(&format!("{name}/conv1"), x, 1, true)?;
        let y = self.relu(y)?;
        let y = self.scaled(&format!("{name}/conv2"), y, 1, true)?;
        let y = self.push(Op::Add, &[y, x])?;
        self.relu(y)
    }

    /// Halves the image. The shortcut is pooled; zeros make up for channels that it lacks and for the row and column that
    /// the convolutions lose where the side is odd.
    fn residual_down(&mut self, x: ValueId, name: &str) -> Result<ValueId, ArchitectureError> {
        let mut pooled = self.push(Op::AveragePool { window: Window::square(2, 2) }, &[x])?;
        let y = self.scaled(&format!("{name}/conv1"), x, 2, false)?;
        let y = self.relu(y)?;
        let mut y = self.scaled(&format!("{name}/conv2"), y, 1, true)?;
        let (out, short) = (self.shapes[y], self.shapes[pooled]);
        if out.channels != short.channels {
            pooled = self.push(Op::PadChannels { count: short.channels }, &[pooled])?;
        }
        if (out.height, out.width) != (short.height, short.width) {
            y = self.push(Op::PadSpatial { edges: Edges { bottom: 1, right: 1, ..Edges::NONE } }, &[y])?;
        }
        let sum = self.push(Op::Add, &[pooled, y])?;
        self.relu(sum)
    }

    /// Four convolutions, each fed with the sum of all before it; the first halves the image.
    fn dense_block(&mut self, x: ValueId, block: &str) -> Result<ValueId, ArchitectureError> {
        let first = format!("{block}/conv0");
        let out = match self.source.get(&format!("{first}/filters")) {
            Ok(_) => self.convolution(x, &first, 2, Same::Yes)?,
            Err(_) => self.separable(x, &first, 2)?,
        };
        let mut sum = self.relu(out)?;
        let mut activated = sum;
        for conv in ["conv1", "conv2", "conv3"] {
            let out = self.separable(activated, &format!("{block}/{conv}"), 1)?;
            sum = self.push(Op::Add, &[out, sum])?;
            activated = self.relu(sum)?;
        }
        Ok(activated)
    }

    fn finish(self, output: ValueId) -> Result<(Graph, Weights), ArchitectureError> {
        if let Some((name, _)) = self.source.iter().find(|(name, _)| self.weights.get(name).is_err()) {
            return Err(ArchitectureError::Unused(name.into()));
        }
        Ok((Graph { input: self.shapes[0], nodes: self.nodes, output }, self.weights))
    }
}
