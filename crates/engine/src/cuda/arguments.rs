//! What the kernels are given: the same as in kernels/net/arguments.h. Addresses are the device's. A kernel's size of its argument is compared at every
//! launch.

use vultus_cuda::TensorMap;

use crate::{
    graph::{Edges, Window},
    int8::Form,
};

/// Representations of one value, at most.
pub const MAX_EMITS: usize = 8;

#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct Operand {
    pub data: u64,
    pub form: i32,
    pub unit: f32,
    pub channels: i32,
    pub pitch: i32,
    pub height: i32,
    pub width: i32,
}

impl Operand {
    pub const NONE: Self = Self { data: 0, form: 0, unit: 1.0, channels: 0, pitch: 0, height: 0, width: 0 };
}

#[derive(Debug, Clone, Copy, Default)]
#[repr(C)]
pub struct Emit {
    pub data: u64,
    pub scale: u64,
    pub shift: u64,
    pub form: i32,
    pub inverse: f32,
}

#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct Result {
    pub emits: [Emit; MAX_EMITS],
    pub count: i32,
    pub images: i32,
    pub channels: i32,
    pub pitch: i32,
    pub height: i32,
    pub width: i32,
}

#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct Activation {
    pub slopes: u64,
    pub kind: i32,
    pub unused: i32,
}

#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct Slide {
    pub height: i32,
    pub width: i32,
    pub stride: i32,
    pub top: i32,
    pub left: i32,
}

impl Slide {
    pub fn new(window: Window, padding: Edges) -> Self {
        Self {
            height: window.height as i32,
            width: window.width as i32,
            stride: window.stride as i32,
            top: padding.top as i32,
            left: padding.left as i32,
        }
    }
}

#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct Convolution {
    pub result: Result,
    pub x: Operand,
    pub residual: Operand,
    pub activation: Activation,
    pub weight: u64,
    pub scale: u64,
    pub bias: u64,
    pub partial: u64,
    pub tickets: u64,
    pub slide: Slide,
    pub steps: i32,
    pub splits: i32,
    pub unused: i32,
}

/// As [`Convolution`], for Hopper.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct HopperConvolution {
    pub x: TensorMap,
    pub weight: TensorMap,
    pub result: Result,
    pub residual: Operand,
    pub activation: Activation,
    pub scale: u64,
    pub bias: u64,
    pub slide: Slide,
    pub parts: i32,
    pub tiles: i32,
    pub across: i32,
}

#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct Grouped {
    pub result: Result,
    pub x: Operand,
    pub residual: Operand,
    pub activation: Activation,
    pub weight: u64,
    pub scale: u64,
    pub bias: u64,
    pub slide: Slide,
    pub groups: i32,
}

#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct Stem {
    pub result: Result,
    pub x: Operand,
    pub activation: Activation,
    pub weight: u64,
    pub scale: u64,
    pub bias: u64,
    pub row_class: u64,
    pub column_class: u64,
    pub slide: Slide,
    pub column_classes: i32,
    pub steps: i32,
    pub unused: i32,
}

/// What [`Elementwise`] does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
pub enum ElementwiseKind {
    Affine = 0,
    Activate = 1,
    Clip = 2,
    Sigmoid = 3,
    Sqrt = 4,
    Reciprocal = 5,
    Add = 6,
    Multiply = 7,
    MultiplyChannels = 8,
    Divide = 9,
}

#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct Elementwise {
    pub result: Result,
    pub a: Operand,
    pub b: Operand,
    pub activation: Activation,
    pub first: u64,
    pub second: u64,
    pub low: f32,
    pub high: f32,
    pub kind: i32,
    pub unused: i32,
}

#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct Normalise {
    pub result: Result,
    pub x: Operand,
    pub mean: [f32; 3],
    pub scale: f32,
    pub colour: [i32; 3],
    pub unused: i32,
}

#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct Pool {
    pub result: Result,
    pub x: Operand,
    pub slide: Slide,
    pub share: f32,
}

#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct Reduce {
    pub result: Result,
    pub x: Operand,
    pub squares: i32,
    pub unused: i32,
}

/// What [`Move`] does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
pub enum MoveKind {
    Pad = 0,
    Repeat = 1,
    Flatten = 2,
}

#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct Move {
    pub result: Result,
    pub x: Operand,
    pub kind: i32,
    pub top: i32,
    pub left: i32,
    pub unused: i32,
}

#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct Digest {
    pub data: u64,
    pub words: u64,
    pub sum: u64,
}

/// As the kernels number it.
pub fn form(form: Form) -> i32 {
    match form {
        Form::Pixels => 0,
        Form::U8 => 1,
        Form::S8 => 2,
        Form::F16 => 3,
        Form::F32 => 4,
    }
}
