// Operations on each element alone, or on those of two tensors at the same place.
#include "result.cuh"

// exp of -87 to 0, as the specification says.
DEVICE float exponential(float y) {
  const float n = rintf(y * 1.44269504f);
  float r = fmaf(-n, 355.f / 512.f, y);
  r = fmaf(-n, -2.1219444e-4f, r);
  float p = 1.9875691e-4f;
  p = fmaf(p, r, 1.3981999e-3f);
  p = fmaf(p, r, 8.333452e-3f);
  p = fmaf(p, r, 4.1665796e-2f);
  p = fmaf(p, r, 0.16666665f);
  p = fmaf(p, r, 0.5f);
  const float q = fmaf(r * r, p, r) + 1.f;
  return q * __int_as_float(((int)n + 127) << 23);
}

DEVICE float sigmoid(float v) {
  const float size = fabsf(v), e = exponential(-(size > 87.f ? 87.f : size));
  return v < 0 ? e / (1.f + e) : 1.f / (1.f + e);
}

KERNEL(elementwise, Elementwise, 128, 4) {
  const Four four = four_of_thread(p.result);
  if (!four.inside) return;
  float a[4], b[4], v[4];
  read4(p.a, four.pixel * p.a.pitch + four.channel, a);
  if (p.kind >= ADD) {
    // A factor for each channel has one pixel an image.
    const size_t pixel = p.kind == MULTIPLY_CHANNELS ? (size_t)four.image : four.pixel;
    read4(p.b, pixel * p.b.pitch + four.channel, b);
  }
  if (p.kind == AFFINE) {
    const float4 scale = load4(p.first + four.channel), shift = load4(p.second + four.channel);
    v[0] = fmaf(a[0], scale.x, shift.x); v[1] = fmaf(a[1], scale.y, shift.y);
    v[2] = fmaf(a[2], scale.z, shift.z); v[3] = fmaf(a[3], scale.w, shift.w);
  } else {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      switch (p.kind) {
        case CLIP: {
          const float low = a[i] < p.low ? p.low : a[i];
          v[i] = low > p.high ? p.high : low;
          break;
        }
        case SIGMOID: v[i] = sigmoid(a[i]); break;
        case SQRT: v[i] = sqrtf(a[i]); break;
        case RECIPROCAL: v[i] = 1.f / a[i]; break;
        case ADD: v[i] = a[i] + b[i]; break;
        case MULTIPLY:
        case MULTIPLY_CHANNELS: v[i] = a[i] * b[i]; break;
        case DIVIDE: v[i] = a[i] / b[i]; break;
        default: v[i] = a[i];
      }
    }
  }
  if (p.kind == ACTIVATE || p.kind == ADD) activate4(p.activation, four.channel, v);
  emit4(p.result, four.pixel, four.channel, v);
}

// The pixels as numbers, where no stem reads them.
KERNEL(normalise, Normalise, 128, 4) {
  const Four four = four_of_thread(p.result);
  if (!four.inside) return;
  float v[4] = {0, 0, 0, 0};
  if (four.channel == 0) {
    const uint8_t* pixel = (const uint8_t*)p.x.data + four.pixel * 3;
#pragma unroll
    for (int i = 0; i < 3; ++i) v[i] = ((float)pixel[p.colour[i]] - p.mean[i]) * p.scale;
  }
  emit4(p.result, four.pixel, four.channel, v);
}
