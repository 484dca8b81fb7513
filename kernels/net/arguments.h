// What the kernels are given. The host lays out the same in crates/engine/src/cuda/arguments.rs.
//
// Tensors lie on the device as image, row, column, channel. A pixel has `pitch` elements: its channels, rounded up to a multiple of 16. What lies
// beyond the channels is anything; weights there are 0, so sums do not see it. Tensor 0, the pixels, has three bytes a pixel and no more.
#pragma once
#include <stdint.h>

enum Form : int32_t { FORM_PIXELS = 0, FORM_U8 = 1, FORM_S8 = 2, FORM_F16 = 3, FORM_F32 = 4 };

enum ActivationKind : int32_t { IDENTITY = 0, RELU = 1, SLOPES = 2 };

// A tensor that is read. Elements of FORM_F16 count in units of `unit`.
struct Operand {
  const void* data;
  int32_t form;
  float unit;
  int32_t channels, pitch, height, width;
};

// A representation that is stored. `scale` and `shift` have a value for each channel, of codes alone; `inverse` is 1 / unit.
struct Emit {
  void* data;
  const float* scale;
  const float* shift;
  int32_t form;
  float inverse;
};

constexpr int MAX_EMITS = 8;

// What a step gives: the shape of its result and what is stored of it.
struct Result {
  Emit emits[MAX_EMITS];
  int32_t count;
  int32_t images, channels, pitch, height, width;
};

// `slopes` has a value for each channel.
struct Activation {
  const float* slopes;
  int32_t kind;
  int32_t unused;
};

// Where a window lies: `top` and `left` are what is added before the first row and column.
struct Slide {
  int32_t height, width, stride, top, left;
};

// A dense convolution of codes. `weight` is [pitch of the result][steps * 64]: row, column, channel of the operand's pitch, then zeros.
// `partial` and `tickets` are of the blocks that share a tile when `splits` is more than 1; tickets are 0 before and after.
struct Convolution {
  Result result;
  Operand x;
  Operand residual;  // data is null without
  Activation activation;
  const int8_t* weight;
  const float* scale;
  const float* bias;
  int32_t* partial;
  int32_t* tickets;
  Slide slide;
  int32_t steps, splits;
  int32_t unused;
};

// How the copy engine of Hopper finds a tile of a tensor; the driver writes it.
struct alignas(64) TensorMap {
  uint64_t words[16];
};

// The same as Convolution, for Hopper: `x` finds the pixels under a place of the window, `weight` rows of weights. A step is a part of a pixel's channels
// under one place; a row of weights has them one after the other.
struct HopperConvolution {
  TensorMap x;
  TensorMap weight;
  Result result;
  Operand residual;
  Activation activation;
  const float* scale;
  const float* bias;
  Slide slide;
  int32_t parts;  // of a pixel
  int32_t tiles, across;  // of the result: all, and side by side in its channels
};

// A convolution in groups. Depthwise, `weight` is [height * width][pitch]; otherwise [height * width][channels of the operand / groups][pitch].
struct Grouped {
  Result result;
  Operand x;
  Operand residual;
  Activation activation;
  const int8_t* weight;
  const float* scale;
  const float* bias;
  Slide slide;
  int32_t groups;
};

// A dense convolution of the pixels. `weight` is [2][pitch][steps * 64]: weights of 15 bits as 128 * w[0] + w[1]; row, column, colour, then zeros.
// `bias` is [row classes * column classes][pitch].
struct Stem {
  Result result;
  Operand x;
  Activation activation;
  const int8_t* weight;
  const float* scale;
  const float* bias;
  const uint8_t* row_class;
  const uint8_t* column_class;
  Slide slide;
  int32_t column_classes, steps;
  int32_t unused;
};

enum ElementwiseKind : int32_t {
  AFFINE = 0, ACTIVATE = 1, CLIP = 2, SIGMOID = 3, SQRT = 4, RECIPROCAL = 5, ADD = 6, MULTIPLY = 7, MULTIPLY_CHANNELS = 8, DIVIDE = 9
};

// Affine: `first` scale and `second` shift for each channel. Clip: `low` and `high`.
struct Elementwise {
  Result result;
  Operand a;
  Operand b;
  Activation activation;
  const float* first;
  const float* second;
  float low, high;
  int32_t kind;
  int32_t unused;
};

// The pixels as numbers: (pixel - mean) * scale, channel c of the network is colour `colour[c]` of the pixel.
struct Normalise {
  Result result;
  Operand x;
  float mean[3];
  float scale;
  int32_t colour[3];
  int32_t unused;
};

struct Pool {
  Result result;
  Operand x;
  Slide slide;
  float share;  // of the mean: 1 / places; 0 for the maximum
};

// Over the channels of a pixel: their sum, or the root of the sum of their squares.
struct Reduce {
  Result result;
  Operand x;
  int32_t squares;
  int32_t unused;
};

enum MoveKind : int32_t { PAD = 0, REPEAT = 1, FLATTEN = 2 };

struct Move {
  Result result;
  Operand x;
  int32_t kind, top, left;
  int32_t unused;
};

struct Digest {
  const void* data;
  uint64_t words;
  uint64_t* sum;  // what comes to it
};
