// A dense convolution of codes on tensor cores of any card: any window, stride and padding.
//
// It is a product of matrices: pixels of the result x (rows, columns, channels under the window) times those x channels of the result, summed in s32,
// exactly. A block computes a tile of BM pixels x BN channels in steps of 64 bytes, which copies bring ahead of time into a ring of STAGES. Where there are
// too few tiles for a card, `splits` blocks share one and each takes a part of the steps; the last that is ready adds the parts up: sums are whole
// numbers, so their order does not matter.
#include "result.cuh"

// Where 16 bytes of a row lie: rows of 64 bytes, turned so that eight rows of one column fall into different banks.
DEVICE uint32_t place(int row, int chunk) { return row * 64 + ((chunk ^ (row >> 1)) & 3) * 16; }

template <bool SIGNED, int BM, int BN, int WM, int WN, int STAGES> DEVICE void convolve(const Convolution& p) {
  constexpr int THREADS = BM / WM * (BN / WN) * 32, ROWS = THREADS / 4, A_ROWS = BM / ROWS, B_ROWS = BN / ROWS;
  constexpr int STAGE = (BM + BN) * 64, MT = WM / 16, NT = WN / 8, WIDE = BN + 8;
  static_assert(NT % 2 == 0 && A_ROWS >= 1 && B_ROWS >= 1 && BM % ROWS == 0 && BN % ROWS == 0, "tiles that the threads divide");
  SHARED(shared);
  const uint32_t base = shared_address(shared);
  const int thread = threadIdx.x, lane = thread & 31, warp = thread >> 5;
  const Result& out = p.result;
  const int area = out.height * out.width, pixels = out.images * area, across = (out.pitch + BN - 1) / BN;
  const int tile = blockIdx.x, m0 = tile / across * BM, n0 = tile % across * BN, split = blockIdx.y;
  const int first = (int)((int64_t)p.steps * split / p.splits), end = (int)((int64_t)p.steps * (split + 1) / p.splits);

  // This thread copies the chunk of 16 bytes `thread % 4` of rows thread / 4, thread / 4 + ROWS, and so on. Its place under the window:
  const int chunk = thread & 3, row0 = thread >> 2, row_bytes = p.x.width * p.x.pitch;
  const int start = first * 64 + chunk * 16, tap = start / p.x.pitch;
  int channel = start - tap * p.x.pitch, r = tap / p.slide.width, s = tap - r * p.slide.width;
  const uint8_t* from[A_ROWS];
  int top[A_ROWS], left[A_ROWS];
#pragma unroll
  for (int i = 0; i < A_ROWS; ++i) {
    const int m = m0 + row0 + i * ROWS, image = m / area, rest = m - image * area, row = rest / out.width, column = rest - row * out.width;
    top[i] = m < pixels ? row * p.slide.stride - p.slide.top : -(1 << 28);
    left[i] = column * p.slide.stride - p.slide.left;
    from[i] = (const uint8_t*)p.x.data + ((int64_t)image * p.x.height + top[i]) * row_bytes + (int64_t)left[i] * p.x.pitch;
  }
  auto load = [&](int step) {
    const uint32_t to = base + (step - first) % STAGES * STAGE;
    const int64_t offset = (int64_t)r * row_bytes + s * p.x.pitch + channel;
#pragma unroll
    for (int i = 0; i < A_ROWS; ++i) {
      const bool inside = r < p.slide.height && (unsigned)(top[i] + r) < (unsigned)p.x.height && (unsigned)(left[i] + s) < (unsigned)p.x.width;
      copy16(to + place(row0 + i * ROWS, chunk), inside ? from[i] + offset : (const uint8_t*)p.x.data, inside);
    }
#pragma unroll
    for (int i = 0; i < B_ROWS; ++i) {
      const int n = n0 + row0 + i * ROWS;
      const bool inside = n < out.pitch;
      copy16(to + BM * 64 + place(row0 + i * ROWS, chunk), inside ? p.weight + ((int64_t)n * p.steps + step) * 64 + chunk * 16 : p.weight, inside);
    }
    for (channel += 64; channel >= p.x.pitch; channel -= p.x.pitch) {
      if (++s == p.slide.width) { s = 0; ++r; }
    }
  };

  int32_t sum[MT][NT][4];
#pragma unroll
  for (int i = 0; i < MT; ++i)
#pragma unroll
    for (int j = 0; j < NT; ++j)
#pragma unroll
      for (int e = 0; e < 4; ++e) sum[i][j][e] = 0;
  const int wm = warp % (BM / WM) * WM, wn = warp / (BM / WM) * WN;
#pragma unroll
  for (int i = 0; i < STAGES - 1; ++i) {
    if (first + i < end) load(first + i);
    end_group();
  }
  for (int step = first; step < end; ++step) {
    wait_groups<STAGES - 2>();
    __syncthreads();
    if (step + STAGES - 1 < end) load(step + STAGES - 1);
    end_group();
    const uint32_t a0 = base + (step - first) % STAGES * STAGE, b0 = a0 + BM * 64;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      uint32_t a[MT][4], b[NT / 2][4];
#pragma unroll
      for (int i = 0; i < MT; ++i) load_matrices(a0 + place(wm + i * 16 + (lane & 15), half * 2 + (lane >> 4)), a[i]);
#pragma unroll
      for (int j = 0; j < NT / 2; ++j) load_matrices(b0 + place(wn + j * 16 + (lane & 7) + (lane >> 4) * 8, half * 2 + ((lane >> 3) & 1)), b[j]);
#pragma unroll
      for (int i = 0; i < MT; ++i)
#pragma unroll
        for (int j = 0; j < NT; ++j) multiply<SIGNED>(sum[i][j], a[i], b[j / 2][j % 2 * 2], b[j / 2][j % 2 * 2 + 1]);
    }
  }
  wait_groups<0>();
  __syncthreads();  // nobody reads the ring any more: it becomes the tile

  if (p.splits > 1) {
    constexpr int EACH = MT * NT * 4;
    int32_t* partial = p.partial + (int64_t)tile * p.splits * EACH * THREADS;
#pragma unroll
    for (int i = 0; i < EACH; ++i) partial[((int64_t)split * EACH + i) * THREADS + thread] = sum[i / (NT * 4)][i / 4 % NT][i % 4];
    fence();
    __syncthreads();
    int32_t* last = (int32_t*)shared;
    if (thread == 0) {
      *last = take_ticket(p.tickets + tile) == p.splits - 1;
      if (*last) p.tickets[tile] = 0;
    }
    __syncthreads();
    if (!*last) return;
    fence();
#pragma unroll
    for (int i = 0; i < EACH; ++i) {
      int32_t all = 0;
      for (int z = 0; z < p.splits; ++z) all += load_fresh(partial + ((int64_t)z * EACH + i) * THREADS + thread);
      sum[i / (NT * 4)][i / 4 % NT][i % 4] = all;
    }
    __syncthreads();  // `last` was read
  }

  int32_t* tiles = (int32_t*)shared;
#pragma unroll
  for (int i = 0; i < MT; ++i)
#pragma unroll
    for (int j = 0; j < NT; ++j)
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int row = wm + i * 16 + (lane >> 2) + 8 * half, column = wn + j * 8 + (lane & 3) * 2;
        *(int2*)(tiles + row * WIDE + column) = make_int2(sum[i][j][half * 2], sum[i][j][half * 2 + 1]);
      }
  __syncthreads();
  for (int i = thread; i < BM * (BN / 4); i += THREADS) {
    const int row = i / (BN / 4), column = i % (BN / 4) * 4;
    if (m0 + row < pixels && n0 + column < out.pitch) {
      const int4 t = *(const int4*)(tiles + row * WIDE + column);
      const int32_t four[4] = {t.x, t.y, t.z, t.w};
      finish4(out, p.scale, p.bias, p.residual, p.activation, (size_t)(m0 + row), n0 + column, four);
    }
  }
}

#define TILE(BM, BN, WM, WN, STAGES, BLOCKS)                                                                                                   \
  KERNEL(convolve_u8_##BM##x##BN, Convolution, BM / WM * (BN / WN) * 32, BLOCKS) { convolve<false, BM, BN, WM, WN, STAGES>(p); } \
  KERNEL(convolve_s8_##BM##x##BN, Convolution, BM / WM * (BN / WN) * 32, BLOCKS) { convolve<true, BM, BN, WM, WN, STAGES>(p); }
// The host has the same list: crates/engine/src/cuda/ops/convolve.rs.
TILE(128, 128, 64, 32, 4, 2)
TILE(128, 64, 32, 32, 4, 2)
TILE(64, 64, 32, 32, 6, 3)
TILE(64, 32, 16, 32, 6, 3)
