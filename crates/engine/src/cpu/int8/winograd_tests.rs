//! Winograd's algorithm in whole numbers, where it applies.

#![allow(clippy::unwrap_used)] // a test fails by panicking

use proptest::prelude::*;

use super::{
    layout::Layout,
    tests::{Case, cases},
    winograd::Winograd,
};
use crate::{
    cpu::kernels::Level,
    graph::{Edges, Shape, Window},
    int8::{Convolution, Form, Tensor, drawn_tests::Draw},
    plan::Activation,
};

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

    /// Of shapes for which Winograd's algorithm applies.
    #[test]
    fn tiles_have_the_bits_of_plain_loops(case in cases(), (lines, outs) in (4..7usize, 64..100usize)) {
        let window = Window::square(3, 1);
        let input = Shape::new(16 * lines, case.input.height.max(3), case.input.width.max(3));
        let case = Case { input, outs, window, groups: false, ..case };
        case.convolution();
    }
}

/// Four times a sum fits just so, or just not; what is added up on the way does not.
#[test]
fn sums_at_the_end_of_32_bits_come_back() {
    let input = Shape::new(1856, 4, 5);
    let case = Case {
        input,
        outs: 64,
        window: Window::square(3, 1),
        padding: Edges::all(1),
        halo: 0,
        signed: false,
        groups: false,
        residual: false,
        activation: 0,
        extreme: true,
        images: 1,
        threads: 1,
        seed: 5,
    };
    // 1020 times the magnitudes of a filter are 2147483520.
    let filter =
        |more: i8| (0..9 * 1856).map(move |at| if at < 16577 { 127 } else { [97 + more, 0][usize::from(at > 16577)] });
    let convolution = |more: i8| Convolution {
        weight: (0..64).flat_map(|o| filter(more).map(move |w: i8| if o % 2 == 0 { w } else { -w })).collect(),
        scale: vec![1e-9; 64],
        bias: vec![0.0; 64],
        window: case.window,
        padding: case.padding,
        groups: 1,
        residual: false,
        activation: Activation::Identity,
    };
    for level in Level::available() {
        let layout = Layout::new(level, Tensor { shape: input, form: Form::U8, exponent: 0 }, case.padding);
        let applies = |more| Winograd::applies(level, &convolution(more), layout, case.out());
        assert_eq!([applies(0), applies(1)], [!level.takes_bytes(), false], "{level:?}");
    }
    let draw = &mut Draw::new(case.seed);
    let x = case.values(input, draw, |draw| draw.whole(0, 255, true) as f32);
    case.check(&convolution(0), &x, Form::U8, draw);
    let greatest = case.values(input, draw, |_| 255.0);
    case.check(&convolution(0), &greatest, Form::U8, draw);
}
