// What all kernels do with operands and results: four neighbouring channels of one pixel at a time. Arithmetic is the specification's (int8/mod.rs of the
// engine): IEEE single, each operation rounded once, nothing contracted (-fmad=false).
#pragma once
#include "arguments.h"
#include "device.cuh"

DEVICE float4 load4(const float* p) { return *(const float4*)p; }

// Elements of FORM_F16 or FORM_F32, `at` counted from the tensor's first.
DEVICE void read4(const Operand& x, size_t at, float (&v)[4]) {
  if (x.form == FORM_F16) {
    const uint2 words = *(const uint2*)((const uint16_t*)x.data + at);
    v[0] = from_half((uint16_t)words.x) * x.unit;
    v[1] = from_half((uint16_t)(words.x >> 16)) * x.unit;
    v[2] = from_half((uint16_t)words.y) * x.unit;
    v[3] = from_half((uint16_t)(words.y >> 16)) * x.unit;
  } else {
    const float4 f = load4((const float*)x.data + at);
    v[0] = f.x; v[1] = f.y; v[2] = f.z; v[3] = f.w;
  }
}

DEVICE float read1(const Operand& x, size_t at) {
  return x.form == FORM_F16 ? from_half(((const uint16_t*)x.data)[at]) * x.unit : ((const float*)x.data)[at];
}

DEVICE void activate4(const Activation& a, int channel, float (&v)[4]) {
  if (a.kind == RELU) {
#pragma unroll
    for (int i = 0; i < 4; ++i) v[i] = v[i] > 0 ? v[i] : 0.f;
  } else if (a.kind == SLOPES) {
    const float4 s = load4(a.slopes + channel);
    const float slope[4] = {s.x, s.y, s.z, s.w};
#pragma unroll
    for (int i = 0; i < 4; ++i) v[i] = v[i] > 0 ? v[i] : v[i] * slope[i];
  }
}

DEVICE uint32_t to_halves(float low, float high, float inverse) {
  uint32_t word = 0;
  const float v[2] = {low * inverse, high * inverse};
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const float number = v[i] == v[i] ? v[i] : 0.f;
    word |= (uint32_t)to_half(fminf(fmaxf(number, -65504.f), 65504.f)) << (16 * i);
  }
  return word;
}

// Stores all representations of v, the channels from `channel` on of the pixel of that number.
DEVICE void emit4(const Result& result, size_t pixel, int channel, const float (&v)[4]) {
  const size_t at = pixel * result.pitch + channel;
  for (int i = 0; i < result.count; ++i) {
    const Emit& e = result.emits[i];
    if (e.form == FORM_F32) {
      *(float4*)((float*)e.data + at) = make_float4(v[0], v[1], v[2], v[3]);
    } else if (e.form == FORM_F16) {
      *(uint2*)((uint16_t*)e.data + at) = make_uint2(to_halves(v[0], v[1], e.inverse), to_halves(v[2], v[3], e.inverse));
    } else {
      const float4 scale = load4(e.scale + channel), shift = load4(e.shift + channel);
      const float z[4] = {fmaf(v[0], scale.x, shift.x), fmaf(v[1], scale.y, shift.y), fmaf(v[2], scale.z, shift.z), fmaf(v[3], scale.w, shift.w)};
      *(uint32_t*)((uint8_t*)e.data + at) = e.form == FORM_S8 ? to_codes<true>(z) : to_codes<false>(z);
    }
  }
}

// What becomes of a convolution's sums: scale, bias, residual, activation, and what is stored of it.
DEVICE void finish4(const Result& result, const float* scale, const float* bias, const Operand& residual, const Activation& activation, size_t pixel,
                    int channel, const int32_t (&sum)[4]) {
  const float4 s = load4(scale + channel), b = load4(bias + channel);
  float v[4] = {fmaf((float)sum[0], s.x, b.x), fmaf((float)sum[1], s.y, b.y), fmaf((float)sum[2], s.z, b.z), fmaf((float)sum[3], s.w, b.w)};
  if (residual.data != nullptr) {
    float r[4];
    read4(residual, pixel * residual.pitch + channel, r);
#pragma unroll
    for (int i = 0; i < 4; ++i) v[i] = v[i] + r[i];
  }
  activate4(activation, channel, v);
  emit4(result, pixel, channel, v);
}

// Four channels of a pixel, for kernels that give each thread four elements: of which pixel and from which channel on; whether it is one of the result's.
struct Four {
  size_t pixel;
  int channel, image, row, column;
  bool inside;
};

DEVICE Four four_of_thread(const Result& r) {
  const size_t at = (size_t)blockIdx.x * blockDim.x + threadIdx.x, fours = r.pitch / 4, pixels = (size_t)r.height * r.width;
  Four four;
  four.pixel = at / fours;
  four.channel = (int)(at - four.pixel * fours) * 4;
  four.image = (int)(four.pixel / pixels);
  const int place = (int)(four.pixel - four.image * pixels);
  four.row = place / r.width;
  four.column = place - four.row * r.width;
  four.inside = four.image < r.images;
  return four;
}
