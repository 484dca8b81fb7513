//! A convolution in groups: kernels/net/grouped.cu.

use vultus_cuda::Error;

use super::{Activation, by_fours};
use crate::{
    cuda::{
        arguments::{self, Operand, Slide},
        layout::{Constants, Layout, Place},
        place::{Here, Run},
    },
    int8,
};

#[derive(Debug)]
pub struct Grouped {
    activation: Activation,
    weight: Place,
    scale: Place,
    bias: Place,
    slide: Slide,
    groups: usize,
    depthwise: bool,
    residual: bool,
}

impl Grouped {
    pub fn new(c: &int8::Convolution, x: Layout, out: Layout, constants: &mut Constants) -> Self {
        let (outs, area) = (out.shape().channels, c.window.height * c.window.width);
        let ins = x.shape().channels / c.groups;
        // Row, column, channel of the group, channel out; of a depthwise one each group has one.
        let mut weight = vec![0i8; area * ins * out.pitch];
        for (channel, filter) in c.weight.chunks_exact(ins * area).enumerate() {
            for (of_group, plane) in filter.chunks_exact(area).enumerate() {
                let at = |place: usize| (place * ins + of_group) * out.pitch + channel;
                plane.iter().enumerate().for_each(|(place, &w)| weight[at(place)] = w);
            }
        }
        Self {
            activation: Activation::new(&c.activation, outs, constants),
            weight: constants.add_codes(&weight),
            scale: constants.add_channels(&c.scale),
            bias: constants.add_channels(&c.bias),
            slide: Slide::new(c.window, c.padding),
            groups: c.groups,
            depthwise: c.groups == outs && ins == 1,
            residual: c.residual,
        }
    }

    pub fn launch(&self, here: &Here<'_>, run: &Run<'_>) -> Result<(), Error> {
        let argument = arguments::Grouped {
            result: here.result(),
            x: here.operand(0),
            residual: if self.residual { here.operand(1) } else { Operand::NONE },
            activation: self.activation.argument(here),
            weight: here.constant(self.weight),
            scale: here.constant(self.scale),
            bias: here.constant(self.bias),
            slide: self.slide,
            groups: self.groups as i32,
        };
        run.launch(if self.depthwise { "depthwise" } else { "grouped" }, by_fours(here), argument)
    }
}
