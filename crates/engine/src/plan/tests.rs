//! What each pass does, on small graphs. That plans give what their graphs give: the executor's tests.

use super::{
    Action, Activation, ActivationRange, Arena, Convolution, Plan, Prologue, RangeError, Step,
    fold::{flatten_into_convolution, fold_back, fold_forward, merge_affines},
    fuse::{fuse_activation, fuse_residual},
    memory::free_early,
};
use crate::{
    graph::{Edges, Graph, Node, Op, Shape, ValueId, Window},
    weights::Weights,
};

fn convolution(weight: &[f32], bias: &[f32], side: usize) -> Action {
    Action::Convolution(Convolution {
        prologue: None,
        weight: weight.into(),
        bias: bias.into(),
        border: None,
        window: Window::square(side, 1),
        padding: Edges::all(side / 2),
        groups: 1,
        residual: false,
        activation: Activation::Identity,
    })
}

fn affine(scale: &[f32], shift: &[f32]) -> Action {
    Action::Affine { scale: scale.into(), shift: shift.into() }
}

/// Steps that give the values 1, 2, ... in turn.
fn steps(actions: Vec<(Action, &[ValueId])>) -> Vec<Step> {
    let step = |(index, (action, inputs)): (usize, (Action, &[ValueId]))| Step {
        parts: vec![["a", "b", "c", "d", "e"][index]],
        action,
        inputs: inputs.into(),
        output: index + 1,
        frees: vec![],
    };
    actions.into_iter().enumerate().map(step).collect()
}

const ONE: Shape = Shape { channels: 1, height: 3, width: 3 };

fn parts(steps: &[Step]) -> Vec<String> {
    steps.iter().map(|step| step.parts.concat()).collect()
}

fn with_prologue_folded(c: &Convolution) -> Convolution {
    let mut c = c.clone();
    c.fold_prologue(ONE, ONE);
    c
}

fn first(steps: &[Step]) -> &Convolution {
    match &steps[0].action {
        Action::Convolution(c) => c,
        other => panic!("{other:?}"),
    }
}

#[test]
fn affines_in_a_row_become_one() {
    let all =
        steps(vec![(affine(&[2.0], &[1.0]), &[0]), (affine(&[3.0], &[5.0]), &[1]), (affine(&[1.0], &[1.0]), &[2])]);
    let merged = merge_affines(all, &[ONE; 4], 3);
    assert_eq!((merged[0].action.clone(), merged.len()), (affine(&[6.0], &[9.0]), 1));
    assert_eq!((merged[0].inputs[0], merged[0].output, parts(&merged)), (0, 3, vec!["abc".to_string()]));
}

#[test]
fn an_affine_goes_into_the_convolution_before_it() {
    let all = || steps(vec![(convolution(&[2.0], &[1.0], 1), &[0]), (affine(&[3.0], &[5.0]), &[1])]);
    let folded = fold_back(all(), &[ONE; 3], 2);
    let c = first(&folded);
    assert_eq!((&c.weight[..], &c.bias[..], folded[0].output, folded.len()), (&[6.0][..], &[8.0][..], 2, 1));
    // Not when somebody else reads what lies between.
    assert_eq!(fold_back(all(), &[ONE; 3], 1).len(), 2);
    let mut read = all();
    read.extend(steps(vec![(Action::Sigmoid, &[1])]).into_iter().map(|step| Step { output: 3, ..step }));
    assert_eq!(fold_back(read, &[ONE; 4], 3).len(), 3);
}

#[test]
fn an_affine_becomes_a_prologue_of_the_convolution_after_it_and_leaves_a_border_when_folded() {
    let weight: Vec<f32> = (1..10).map(|v| v as f32).collect();
    let all = || steps(vec![(affine(&[2.0], &[10.0]), &[0]), (convolution(&weight, &[1.0], 3), &[1])]);
    let folded = fold_forward(all(), &[ONE; 3], 2);
    let prologue = Prologue { value: 1, scale: vec![2.0], shift: vec![10.0] };
    assert_eq!((first(&folded).prologue.as_ref(), first(&folded).weight.clone()), (Some(&prologue), weight.clone()));
    assert_eq!((first(&folded).convolved(0), folded[0].inputs[0]), (1, 0));
    let c = with_prologue_folded(first(&folded));
    assert_eq!(c.weight, weight.iter().map(|w| 2.0 * w).collect::<Vec<_>>());
    let border = c.border.as_ref().unwrap();
    assert_eq!(
        (&border.row_class[..], &border.column_class[..], border.column_classes),
        (&[0, 1, 2][..], &[0, 1, 2][..], 3)
    );
    // Kernel 1 2 3 / 4 5 6 / 7 8 9: at the top left only 5 6 8 9 lie inside, in the middle all.
    assert_eq!(border.values, [281., 391., 241., 331., 451., 271., 161., 211., 121.]);
    assert_eq!((folded[0].inputs[0], parts(&folded)), (0, vec!["ab".to_string()]));
    // Without padding the bias alone changes.
    let plain = steps(vec![(affine(&[2.0], &[10.0]), &[0]), (convolution(&[3.0], &[1.0], 1), &[1])]);
    let c = with_prologue_folded(first(&fold_forward(plain, &[ONE; 3], 2)));
    assert_eq!((c.border.is_none(), &c.bias[..]), (true, &[31.0][..]));
    let unread = all();
    // Of flattened features: it goes into the weights, which no window divides into channels yet.
    let all = steps(vec![
        (Action::Flatten, &[0]),
        (affine(&[2.0; 9], &[1.0; 9]), &[1]),
        (convolution(&[1.0; 9], &[0.5], 1), &[2]),
    ]);
    let shapes = [ONE, Shape::new(9, 1, 1), Shape::new(9, 1, 1), Shape::new(1, 1, 1)];
    let folded = flatten_into_convolution(fold_forward(all, &shapes, 3), &shapes, 3);
    let c = first(&folded);
    assert_eq!((c.prologue.is_none(), &c.weight[..], &c.bias[..]), (true, &[2.0; 9][..], &[9.5][..]));
    // Not when somebody else reads the affine step's value.
    assert_eq!(fold_forward(unread, &[ONE; 3], 1).len(), 2);
}

#[test]
fn a_border_is_scaled_by_an_affine_after_it() {
    let all = steps(vec![
        (affine(&[1.0], &[10.0]), &[0]),
        (convolution(&[1.0; 9], &[0.0], 3), &[1]),
        (affine(&[2.0], &[-1.0]), &[2]),
    ]);
    let folded = fold_back(fold_forward(all, &[ONE; 4], 3), &[ONE; 4], 3);
    let border = with_prologue_folded(first(&folded)).border.unwrap();
    assert_eq!((border.values[0], border.values[4], folded.len()), (79.0, 179.0, 1));
}

#[test]
fn a_prologue_before_a_prologue_is_one() {
    // The first affine step is read by two: it goes into both once the second went into one.
    let all = || {
        let reader = |input: &'static [ValueId]| (convolution(&[3.0], &[0.0], 1), input);
        steps(vec![
            (affine(&[2.0], &[1.0]), &[0]),
            (affine(&[5.0], &[7.0]), &[1]),
            reader(&[2]),
            reader(&[1]),
            (Action::Add(Activation::Identity), &[3, 4]),
        ])
    };
    let folded = fold_forward(fold_forward(all(), &[ONE; 6], 5), &[ONE; 6], 5);
    assert_eq!(parts(&folded), ["abc", "ad", "e"]);
    let prologue = Prologue { value: 2, scale: vec![10.0], shift: vec![12.0] };
    assert_eq!(first(&folded).prologue, Some(prologue), "it gives what the later gave");
    let flat = Plan { steps: folded, shapes: vec![Shape::new(16, 3, 3); 6], output: 5, ranges: vec![] };
    assert_eq!(flat.code_values(), [2, 1], "ranges are of what is convolved");
}

#[test]
fn a_layer_on_flattened_features_is_a_convolution_of_the_whole_image() {
    let flat = Shape::new(9, 1, 1);
    let shapes = [ONE, ONE, flat, Shape::new(1, 1, 1)];
    let weight: Vec<f32> = (0..9).map(|v| v as f32).collect();
    let all =
        steps(vec![(affine(&[2.0], &[1.0]), &[0]), (Action::Flatten, &[1]), (convolution(&weight, &[0.5], 1), &[2])]);
    let folded = fold_forward(flatten_into_convolution(all, &shapes, 3), &shapes, 3);
    assert_eq!(first(&folded).prologue.as_ref().map(|prologue| prologue.value), Some(1));
    let mut c = first(&folded).clone();
    c.fold_prologue(ONE, shapes[3]);
    assert_eq!((c.window, c.padding), (Window { height: 3, width: 3, stride: 1 }, Edges::NONE));
    assert_eq!((&c.bias[..], c.border.is_none(), parts(&folded)), (&[36.5][..], true, vec!["abc".to_string()]));
}

#[test]
fn residuals_and_activations_end_in_the_epilogue() {
    // Two branches of value 0; the addition goes into the later convolution.
    let all = steps(vec![
        (convolution(&[2.0], &[1.0], 1), &[0]),
        (convolution(&[3.0], &[1.0], 1), &[0]),
        (Action::Add(Activation::Identity), &[1, 2]),
        (Action::Activate(Activation::Relu), &[3]),
    ]);
    let fused = fuse_activation(fuse_residual(all, &[ONE; 5], 4), &[ONE; 5], 4);
    assert_eq!(parts(&fused), ["a", "bcd"]);
    assert_eq!((fused[1].inputs.as_slice(), fused[1].output), ([0, 1].as_slice(), 4));
    assert!(matches!(&fused[1].action, Action::Convolution(c) if c.residual && c.activation == Activation::Relu));
    // A value added to itself stays an addition; its activation goes there.
    let twice = steps(vec![
        (convolution(&[2.0], &[1.0], 1), &[0]),
        (Action::Add(Activation::Identity), &[1, 1]),
        (Action::Activate(Activation::Relu), &[2]),
    ]);
    let fused = fuse_activation(fuse_residual(twice, &[ONE; 4], 3), &[ONE; 4], 3);
    assert_eq!((parts(&fused), &fused[1].action), (vec!["a".into(), "bc".into()], &Action::Add(Activation::Relu)));
}

#[test]
fn values_share_memory_only_after_their_time() {
    // A long shortcut: value 1 is needed until the end.
    let chain = |x: &'static [ValueId]| (convolution(&[1.0], &[0.0], 1), x);
    let mut all = steps(vec![chain(&[0]), chain(&[1]), chain(&[2]), chain(&[3])]);
    all.extend([Step { parts: vec!["f"], inputs: vec![4, 1], output: 5, ..all[0].clone() }]);
    let steps = free_early(all, 5);
    assert_eq!(
        steps.iter().map(|s| s.frees.clone()).collect::<Vec<_>>(),
        [vec![0], vec![], vec![2], vec![3], vec![4, 1]]
    );
    let plan = Plan { steps, shapes: vec![ONE; 6], output: 5, ranges: vec![] };
    let arena = Arena::of(&plan);
    assert_eq!((arena.slots.as_slice(), arena.elements(4)), ([9; 3].as_slice(), 108));
    let mut held: Vec<Option<ValueId>> = vec![None; arena.slots.len()];
    held[0] = Some(0);
    for step in &plan.steps {
        for &input in &step.inputs {
            assert_eq!(held[arena.slot_of[input].unwrap()], Some(input), "{input} was overwritten");
        }
        held[arena.slot_of[step.output].unwrap()] = Some(step.output);
        assert!(step.inputs.iter().all(|&input| arena.slot_of[input] != arena.slot_of[step.output]));
    }
}

#[test]
fn ranges_are_those_of_the_plan_or_refused() {
    let wide = Shape::new(16, 3, 3);
    let filter = |seed: f32| convolution(&[seed; 16], &[0.0], 1);
    let steps = steps(vec![(filter(1.0), &[0]), (filter(2.0), &[0])]);
    let plan = || Plan { steps: steps.clone(), shapes: vec![wide, ONE, ONE], output: 2, ranges: vec![] };
    assert_eq!(plan().code_values(), [0], "two convolutions read one value");
    let range = |value, low, high| ActivationRange { value, low, high };
    let good = plan().with_ranges(&[range(0, -1.0, 2.0)]).unwrap();
    assert_eq!(good.range(0), Some(&range(0, -1.0, 2.0)));
    let refused = |ranges: &[ActivationRange]| plan().with_ranges(ranges).unwrap_err();
    assert_eq!(refused(&[]), RangeError::None);
    assert_eq!(refused(&[range(0, -1.0, 2.0); 2]), RangeError::Count { expected: 1, got: 2 });
    assert_eq!(refused(&[range(1, -1.0, 2.0)]), RangeError::Missing(0));
    for (low, high) in [(f32::NAN, 1.0), (0.0, f32::INFINITY), (0.5, 1.0), (-1.0, -0.5), (-1e31, 0.0)] {
        assert_eq!(refused(&[range(0, low, high)]), RangeError::Ends(0), "{low} {high}");
    }
}

#[test]
fn what_folds_to_infinity_is_refused_with_its_step() {
    let mut weights = Weights::new();
    weights.insert("w", vec![1, 1, 1, 1], vec![1e30]).unwrap();
    weights.insert("s", vec![1], vec![1e30]).unwrap();
    let op = Op::Convolution {
        weight: "w".into(),
        bias: None,
        window: Window::square(1, 1),
        padding: Edges::NONE,
        groups: 1,
    };
    let scaled = Op::Affine { scale: "s".into(), shift: "s".into() };
    let nodes = [op, scaled].into_iter().zip(0..).map(|(op, at)| Node { op, inputs: vec![at] }).collect();
    let refused = Plan::new(&Graph { input: ONE, nodes, output: 2 }, &weights).unwrap_err().to_string();
    assert!(refused.starts_with("step 0 (convolution 1x1/1, of convolution + affine)"), "{refused}");
    assert!(refused.contains("not finite"), "{refused}");
}
