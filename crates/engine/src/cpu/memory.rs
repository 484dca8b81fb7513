//! What a network holds in memory, known before any of it is taken: a small file can ask for much. Values lie in lines
//! of 16 channels, of which a network with few uses few.

use super::{
    convolve::Dense,
    layout::{LANES, Line, area, blocks, lines},
    method::{self, Method},
    winograd::Winograd,
};
use crate::{
    executor::LoadError,
    graph::Shape,
    plan::{Action, Arena, Plan, Step},
};

/// Bytes of the largest activation of the images that run together, at most, unless one image alone has more.
const MAX_ACTIVATION: usize = 4 << 20;
/// The same for a network of more than [`MANY_WEIGHTS`]: these come from memory once for all images that run together.
const MAX_ACTIVATION_OF_LARGE: usize = 8 << 20;
/// Weights that do not stay in a common L3 cache once they are packed.
const MANY_WEIGHTS: usize = 8 << 20;
/// Images that run together, at most.
const MAX_TOGETHER: usize = 64;

/// Bytes of a thread's activations and scratch, at most: two of the largest values that a graph may have, with room.
/// Places in them, in floats, fit 32 bits.
const MAX_WORKSPACE: u64 = 1 << 30;
/// Bytes of packed weights, at most, beside [`MAX_GROWTH`] times those of the weights as f32.
const MAX_PACKED: u64 = 512 << 20;
/// Winograd's algorithm makes four numbers of one.
const MAX_GROWTH: u64 = 4;

/// Bytes that a network holds on the CPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    /// Weights as kernels read them, once for all threads.
    pub packed: u64,
    /// Activations of all images that run together, and scratch: of each thread that has images of its own.
    pub workspace: u64,
    /// Weights as f32.
    plain: u64,
}

impl Held {
    pub fn of(plan: &Plan, bf16: bool) -> Self {
        let interleaved = method::interleaves(plan);
        let slots = arena(&plan.steps, &plan.shapes, interleaved).slots;
        let together = together(plan, &slots);
        let plain: usize = plan.steps.iter().map(|step| step.action.parameters()).sum();
        let (mut packed, mut scratch) = (0, 0);
        for (step, method) in plan.steps.iter().zip(method::methods(plan, bf16)) {
            let shape = plan.shapes[step.inputs[0]];
            let interleaved = interleaved && step.inputs[0] == 0;
            let (more, needed) = of_step(step, method, shape, plan.shapes[step.output], interleaved, together);
            packed += more;
            scratch = scratch.max(needed);
        }
        let slots: usize = slots.iter().sum();
        Self {
            packed: bytes(packed),
            workspace: bytes(slots.saturating_mul(together) + scratch),
            plain: 4 * plain as u64,
        }
    }

    /// Of an integer network that is `packed` bytes, made of `plan`.
    pub fn of_program(plan: &Plan, packed: usize, workspace: usize) -> Self {
        let plain: usize = plan.steps.iter().map(|step| step.action.parameters()).sum();
        Self { packed: packed as u64, workspace: workspace as u64, plain: 4 * plain as u64 }
    }

    /// # Errors
    /// [`LoadError::Memory`] where it is more than any network of faces needs.
    pub fn check(self) -> Result<(), LoadError> {
        let most = MAX_PACKED.saturating_add(self.plain.saturating_mul(MAX_GROWTH));
        for (what, needs, most) in
            [("packed weights", self.packed, most), ("activations and scratch", self.workspace, MAX_WORKSPACE)]
        {
            if needs > most {
                return Err(LoadError::Memory { what, needs: needs >> 20, most: most >> 20 });
            }
        }
        Ok(())
    }
}

fn bytes(lines: usize) -> u64 {
    (lines as u64).saturating_mul(size_of::<Line>() as u64)
}

/// Lines of weights, and of scratch for each thread.
fn of_step(
    step: &Step,
    method: Option<Method>,
    shape: Shape,
    out: Shape,
    interleaved: bool,
    together: usize,
) -> (usize, usize) {
    let Action::Convolution(c) = &step.action else { return (0, 0) };
    let taps = c.window.height * c.window.width;
    match method {
        Some(Method::Dense(factors)) => {
            let packed = blocks(out.channels) * super::factors::steps(c, shape.channels, interleaved, factors);
            (packed, Dense::scratch(c.window, [shape, out], interleaved, factors, together))
        }
        Some(Method::Winograd { side, bf16 }) => Winograd::lines(shape, out, side, bf16),
        None if c.groups == shape.channels && c.bias.len() == shape.channels => (blocks(shape.channels) * taps, 0),
        None => (c.weight.len().div_ceil(LANES), 0),
    }
}

/// Where values lie, in lines for one image; the input's slot is 0.
pub fn arena(steps: &[Step], shapes: &[Shape], interleaved: bool) -> Arena {
    Arena::new(steps, shapes.len(), |id| match id {
        0 if interleaved => shapes[0].channels * area(shapes[0]) / LANES + 1,
        id => lines(shapes[id]),
    })
}

/// Images that run together: so many that the activations stay in a cache.
pub fn together(plan: &Plan, slots: &[usize]) -> usize {
    let large = plan.steps.iter().map(|step| step.action.parameters()).sum::<usize>() > MANY_WEIGHTS;
    let largest = slots.iter().max().map_or(1, |lines| lines * size_of::<Line>());
    let most = if large { MAX_ACTIVATION_OF_LARGE } else { MAX_ACTIVATION };
    (most / largest.max(1)).clamp(1, MAX_TOGETHER)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        cpu::{int8, kernels::Level},
        graph::{Edges, Graph, Node, Op, Window},
        input::{Colour, Input},
        int8::Program,
        plan::ActivationRange,
        weights::Weights,
    };

    fn plan(input: Shape, nodes: Vec<Op>, tensors: &[(&str, [usize; 4])]) -> Plan {
        let mut weights = Weights::new();
        for (name, shape) in tensors {
            weights.insert(name, shape.to_vec(), vec![0.5; shape.iter().product()]).unwrap();
        }
        let nodes: Vec<Node> = nodes.into_iter().zip(0..).map(|(op, at)| Node { op, inputs: vec![at] }).collect();
        Plan::new(&Graph { input, output: nodes.len(), nodes }, &weights).unwrap()
    }

    fn convolution(weight: &str, side: usize) -> Op {
        let (window, padding) = (Window::square(side, 1), Edges::NONE);
        Op::Convolution { weight: weight.into(), bias: None, window, padding, groups: 1 }
    }

    fn refused(plan: &Plan) -> String {
        Held::of(plan, false).check().unwrap_err().to_string()
    }

    #[test]
    fn what_grows_beyond_its_file_is_refused_before_it_is_taken() {
        // One channel, 16 times as large in lines.
        let pads = (0..48).map(|_| Op::PadSpatial { edges: Edges::all(64) });
        let padded = [convolution("w", 1)].into_iter().chain(pads).chain([Op::GlobalAveragePool]).collect();
        let refused_padded = refused(&plan(Shape::new(3, 2048, 2048), padded, &[("w", [1, 3, 1, 1])]));
        let expected = "MiB of memory for activations and scratch, expected at most 1024";
        assert!(refused_padded.contains(expected), "{refused_padded}");
        // A window that does not lie side by side is gathered, for 28 pixels.
        let gathered = vec![convolution("a", 1), convolution("b", 64), Op::GlobalAveragePool];
        let tensors = [("a", [2400, 3, 1, 1]), ("b", [1, 2400, 64, 64])];
        let refused_gathered = refused(&plan(Shape::new(3, 69, 69), gathered, &tensors));
        assert!(refused_gathered.contains("activations and scratch"), "{refused_gathered}");
        // One channel out, of 16 in a line of weights.
        let flat = vec![Op::Flatten, Op::FullyConnected { weight: "w".into(), bias: None }];
        let mut weights = Weights::new();
        weights.insert("w", vec![1, 3 * 2048 * 2048], vec![0.0; 3 * 2048 * 2048]).unwrap();
        let nodes = flat.into_iter().zip(0..).map(|(op, at)| Node { op, inputs: vec![at] }).collect();
        let graph = Graph { input: Shape::new(3, 2048, 2048), nodes, output: 2 };
        let refused_flat = refused(&Plan::of(&graph, weights).unwrap());
        assert!(refused_flat.contains("MiB of memory for packed weights, expected at most 704"), "{refused_flat}");
    }

    #[test]
    fn groups_whose_weights_grow_in_whole_numbers_are_refused() {
        // A channel out of each group: a panel's weights are zeros but for one in 16.
        let (window, groups) = (Window::square(8, 1), 1 << 13);
        let grouped = Op::Convolution { weight: "a".into(), bias: None, window, padding: Edges::NONE, groups };
        let nodes = vec![convolution("w", 1), grouped, Op::Flatten];
        let tensors = [("w", [1 << 14, 3, 1, 1]), ("a", [1 << 13, 2, 8, 8])];
        let plan = plan(Shape::new(3, 8, 8), nodes, &tensors);
        let range = |value| ActivationRange { value, low: 0.0, high: 1.0 };
        let ranges: Vec<_> = plan.code_values().into_iter().map(range).collect();
        let plan = plan.with_ranges(&ranges).unwrap();
        let input = Input { width: 8, height: 8, colour: Colour::Rgb, mean: [0.0; 3], scale: 1.0 };
        let program = Program::new(&plan, &input).unwrap();
        let plain = Held::of_program(&plan, 0, 0).plain;
        for level in Level::available() {
            let packed = int8::Network::packed(&program, level) as u64;
            assert!(packed > 4 * plain, "{level:?} {packed}");
        }
        let most = MAX_PACKED + MAX_GROWTH * plain;
        Held::of_program(&plan, most as usize, 0).check().unwrap();
        assert!(Held::of_program(&plan, most as usize + 1, 0).check().is_err());
    }

    #[test]
    fn an_ordinary_network_holds_what_it_is_said_to() {
        let layers = vec![convolution("a", 3), convolution("b", 3), Op::GlobalAveragePool];
        let plan = plan(Shape::new(3, 112, 112), layers, &[("a", [64, 3, 3, 3]), ("b", [64, 64, 3, 3])]);
        let held = Held::of(&plan, false);
        held.check().unwrap();
        assert!(held.packed >= held.plain && held.packed <= 5 * held.plain, "{held:?}");
        // Two values of 64 channels and one of the input, for one image.
        assert!((2 * 64 * 108 * 108 * 4..64 << 20).contains(&held.workspace), "{held:?}");
    }
}
