// The convolution of the pixels, in whole numbers: pixels less 128 are codes with a sign, weights of 15 bits are 128 * high + low, two codes with a sign.
//
// A block computes 64 pixels x BN channels. It gathers 64 bytes under the window of each pixel at a time (row, column, colour: a row of the window lies
// together in the image), multiplies them by both halves of the weights, and adds 128 * the first to the second. Outside of the image lies 0.
#include "result.cuh"

constexpr int STEM_PIXELS = 64, STEM_THREADS = 128;

// Rows of 64 bytes, 16 bytes apart from each other's banks.
DEVICE int stem_place(int row, int byte) { return row * 80 + byte; }

template <int BN> DEVICE void stem(const Stem& p) {
  constexpr int NT = BN / 8, WIDE = BN + 8, HALF = BN * 80;
  SHARED(shared);
  uint8_t* pixels = shared;
  uint8_t* weights = shared + STEM_PIXELS * 80;
  int32_t* places = (int32_t*)(weights + 2 * HALF);  // of each pixel: image, row, column of its window's first place
  const Result& out = p.result;
  const int thread = threadIdx.x, lane = thread & 31, warp = thread >> 5, g = lane >> 2, q = lane & 3;
  const int area = out.height * out.width, all = out.images * area, across = (out.pitch + BN - 1) / BN;
  const int m0 = blockIdx.x / across * STEM_PIXELS, n0 = blockIdx.x % across * BN;
  if (thread < STEM_PIXELS) {
    const int m = m0 + thread, image = m / area, rest = m - image * area, row = rest / out.width, column = rest - row * out.width;
    places[thread * 3] = image;
    places[thread * 3 + 1] = m < all ? row * p.slide.stride - p.slide.top : -(1 << 28);
    places[thread * 3 + 2] = column * p.slide.stride - p.slide.left;
  }
  int32_t high[NT][4], low[NT][4];
#pragma unroll
  for (int j = 0; j < NT; ++j)
#pragma unroll
    for (int e = 0; e < 4; ++e) high[j][e] = low[j][e] = 0;
  const int line = p.slide.width * 3;
  for (int step = 0; step < p.steps; ++step) {
    __syncthreads();
    // This thread gathers one byte of every other pixel.
    const int byte = thread & 63, k = step * 64 + byte, r = k / line, of_line = k - r * line, s = of_line / 3;
    for (int i = thread >> 6; i < STEM_PIXELS; i += STEM_THREADS / 64) {
      const int row = places[i * 3 + 1] + r, column = places[i * 3 + 2] + s;
      const bool inside = r < p.slide.height && (unsigned)row < (unsigned)p.x.height && (unsigned)column < (unsigned)p.x.width;
      const int64_t at = (((int64_t)places[i * 3] * p.x.height + row) * p.x.width + column) * 3 + (of_line - s * 3);
      pixels[stem_place(i, byte)] = inside ? (uint8_t)(((const uint8_t*)p.x.data)[at] ^ 0x80) : 0;
    }
    for (int i = thread; i < 2 * BN * 4; i += STEM_THREADS) {
      const int half = i / (BN * 4), n = i / 4 % BN, chunk = i % 4;
      const bool inside = n0 + n < out.pitch;
      const int8_t* from = p.weight + (((int64_t)half * out.pitch + n0 + n) * p.steps + step) * 64 + chunk * 16;
      *(uint4*)(weights + half * HALF + stem_place(n, chunk * 16)) = inside ? *(const uint4*)from : make_uint4(0, 0, 0, 0);
    }
    __syncthreads();
#pragma unroll
    for (int k32 = 0; k32 < 2; ++k32) {
      uint32_t a[4];
#pragma unroll
      for (int e = 0; e < 4; ++e) a[e] = *(const uint32_t*)(pixels + stem_place(warp * 16 + g + 8 * (e & 1), k32 * 32 + 16 * (e >> 1) + 4 * q));
#pragma unroll
      for (int j = 0; j < NT; ++j) {
        const uint8_t* b = weights + stem_place(j * 8 + g, k32 * 32 + 4 * q);
        multiply<true>(high[j], a, *(const uint32_t*)b, *(const uint32_t*)(b + 16));
        multiply<true>(low[j], a, *(const uint32_t*)(b + HALF), *(const uint32_t*)(b + HALF + 16));
      }
    }
  }
  __syncthreads();
  int32_t* tiles = (int32_t*)shared;
#pragma unroll
  for (int j = 0; j < NT; ++j)
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int at = (warp * 16 + g + 8 * half) * WIDE + j * 8 + q * 2;
      *(int2*)(tiles + at) = make_int2(high[j][half * 2] * 128 + low[j][half * 2], high[j][half * 2 + 1] * 128 + low[j][half * 2 + 1]);
    }
  __syncthreads();
  const Operand none = {nullptr, FORM_F16, 1.f, 0, 0, 0, 0};
  for (int i = thread; i < STEM_PIXELS * (BN / 4); i += STEM_THREADS) {
    const int m = m0 + i / (BN / 4), column = i % (BN / 4) * 4;
    if (m >= all || n0 + column >= out.pitch) continue;
    const int4 t = *(const int4*)(tiles + i / (BN / 4) * WIDE + column);
    const int32_t four[4] = {t.x, t.y, t.z, t.w};
    const int rest = m % area, border = p.row_class[rest / out.width] * p.column_classes + p.column_class[rest % out.width];
    finish4(out, p.scale, p.bias + (size_t)border * out.pitch, none, p.activation, (size_t)m, n0 + column, four);
  }
}

KERNEL(stem_32, Stem, STEM_THREADS, 4) { stem<32>(p); }
KERNEL(stem_64, Stem, STEM_THREADS, 3) { stem<64>(p); }
