// A dense convolution of codes for Hopper: any window, stride and padding whose operand has a multiple of 64 channels.
//
// As in convolve.cu it is a product of matrices, pixels x (places under the window, channels) times those x channels of the result, summed in s32. One
// warp of three warp groups brings tiles of pixels (as windows: im2col) and of weights by the copy engine into a ring; the other two warp groups multiply
// them, 64 MI pixels x BN channels each, in steps of KB bytes. Either both work on one tile, or they take turns: one stores its results while the other
// multiplies. As many blocks run as there are multiprocessors, each takes tile after tile.
#include "hopper.cuh"
#include "result.cuh"

// 16 neighbouring channels of a pixel: what finish4 does, with wide loads and stores.
DEVICE void finish16(const HopperConvolution& p, size_t pixel, int channel, const int32_t (&sum)[16]) {
  const Result& out = p.result;
  float v[16];
#pragma unroll
  for (int i = 0; i < 16; i += 4) {
    const float4 s = load4(p.scale + channel + i), b = load4(p.bias + channel + i);
    v[i] = fmaf((float)sum[i], s.x, b.x);
    v[i + 1] = fmaf((float)sum[i + 1], s.y, b.y);
    v[i + 2] = fmaf((float)sum[i + 2], s.z, b.z);
    v[i + 3] = fmaf((float)sum[i + 3], s.w, b.w);
  }
  if (p.residual.data != nullptr) {
#pragma unroll
    for (int i = 0; i < 16; i += 8) {
      const uint4 halves = *(const uint4*)((const uint16_t*)p.residual.data + pixel * p.residual.pitch + channel + i);
      const uint32_t words[4] = {halves.x, halves.y, halves.z, halves.w};
#pragma unroll
      for (int e = 0; e < 8; ++e) v[i + e] = v[i + e] + from_half((uint16_t)(words[e / 2] >> (16 * (e & 1)))) * p.residual.unit;
    }
  }
#pragma unroll
  for (int i = 0; i < 16; i += 4) {
    float four[4] = {v[i], v[i + 1], v[i + 2], v[i + 3]};
    activate4(p.activation, channel + i, four);
#pragma unroll
    for (int e = 0; e < 4; ++e) v[i + e] = four[e];
  }
  const size_t at = pixel * out.pitch + channel;
  for (int k = 0; k < out.count; ++k) {
    const Emit& e = out.emits[k];
    if (e.form == FORM_F32) {
#pragma unroll
      for (int i = 0; i < 16; i += 4) *(float4*)((float*)e.data + at + i) = make_float4(v[i], v[i + 1], v[i + 2], v[i + 3]);
    } else if (e.form == FORM_F16) {
#pragma unroll
      for (int i = 0; i < 16; i += 8) {
        *(uint4*)((uint16_t*)e.data + at + i) =
            make_uint4(to_halves(v[i], v[i + 1], e.inverse), to_halves(v[i + 2], v[i + 3], e.inverse), to_halves(v[i + 4], v[i + 5], e.inverse),
                       to_halves(v[i + 6], v[i + 7], e.inverse));
      }
    } else {
      uint32_t words[4];
#pragma unroll
      for (int i = 0; i < 16; i += 4) {
        const float4 scale = load4(e.scale + channel + i), shift = load4(e.shift + channel + i);
        const float z[4] = {fmaf(v[i], scale.x, shift.x), fmaf(v[i + 1], scale.y, shift.y), fmaf(v[i + 2], scale.z, shift.z),
                            fmaf(v[i + 3], scale.w, shift.w)};
        words[i / 4] = e.form == FORM_S8 ? to_codes<true>(z) : to_codes<false>(z);
      }
      *(uint4*)((uint8_t*)e.data + at) = make_uint4(words[0], words[1], words[2], words[3]);
    }
  }
}

constexpr int HOPPER_THREADS = 384, RING_BYTES = 200 << 10, MAX_STAGES = 8;

template <bool SIGNED, int BN, int MI, int KB, bool TURNS> DEVICE void convolve_hopper(const HopperConvolution& p) {
  constexpr int BM = 64 * MI * (TURNS ? 1 : 2), A_BYTES = BM * KB, STAGE = A_BYTES + BN * KB, STAGES = RING_BYTES / STAGE < MAX_STAGES ? RING_BYTES / STAGE : MAX_STAGES, WARPS = TURNS ? 4 : 8;
  static_assert(A_BYTES % 1024 == 0 && STAGE % 1024 == 0 && STAGES >= 3, "swizzled tiles begin at multiples of 1024");
  SHARED(shared);
  const uint32_t ring = (shared_address(shared) + 1023) & ~1023u, full = ring + STAGES * STAGE, empty = full + 8 * MAX_STAGES, turn = empty + 8 * MAX_STAGES;
  const int warp = threadIdx.x >> 5, lane = threadIdx.x & 31, group = threadIdx.x >> 7;
  const Result& out = p.result;
  const int area = out.height * out.width, pixels = out.images * area, steps = p.slide.height * p.slide.width * p.parts;
  if (threadIdx.x == 0) {
    prefetch_map(&p.x);
    prefetch_map(&p.weight);
    for (int i = 0; i < STAGES; ++i) {
      make_barrier(full + 8 * i, 1);
      make_barrier(empty + 8 * i, WARPS);
    }
    make_barrier(turn, 4);
    make_barrier(turn + 8, 4);
    barriers_are_made();
  }
  __syncthreads();

  if (group == 0) {
    give_registers<40>();
    if (warp == 0 && lane == 0) {
      int stage = 0, parity = 0;
      for (int tile = blockIdx.x; tile < p.tiles; tile += gridDim.x) {
        const int m0 = tile / p.across * BM, n0 = tile % p.across * BN;
        const int image = m0 / area, rest = m0 - image * area;
        const int h = rest / out.width * p.slide.stride - p.slide.top, w = rest % out.width * p.slide.stride - p.slide.left;
        for (int down = 0; down < p.slide.height; ++down)
          for (int right = 0; right < p.slide.width; ++right)
            for (int part = 0; part < p.parts; ++part) {
              const uint32_t to = ring + stage * STAGE, barrier = full + 8 * stage;
              await(empty + 8 * stage, parity ^ 1);
              announce(barrier, STAGE);
              copy_windows(to, &p.x, barrier, part * KB, w, h, image, (uint16_t)right, (uint16_t)down);
              copy_rows(to + A_BYTES, &p.weight, barrier, ((down * p.slide.width + right) * p.parts + part) * KB, n0);
              if (++stage == STAGES) { stage = 0; parity ^= 1; }
            }
      }
    }
    __syncwarp();
    return;
  }

  take_registers<232>();
  const int worker = group - 1, q = lane & 3;
  int32_t sum[MI][BN / 2];
  int stage = 0, parity = 0, count = 0;
  for (int tile = blockIdx.x; tile < p.tiles; tile += gridDim.x, ++count) {
    if (TURNS && (count & 1) != worker) {
      stage += steps;
      parity ^= stage / STAGES & 1;
      stage %= STAGES;
      continue;
    }
    // A parity cannot tell a phase from the one two before it: a group looks at the ring only after the other has seen all of the tile before filled.
    if (TURNS) await(turn + 8 * worker, ((count >> 1) + 1 + worker) & 1);
    int before = -1;
#pragma unroll 1
    for (int step = 0; step < steps; ++step) {
      await(full + 8 * stage, parity);
      const uint32_t at = ring + stage * STAGE;
      const uint64_t a = descriptor<KB>(at + (TURNS ? 0 : worker * MI * 64 * KB)), b = descriptor<KB>(at + A_BYTES);
      begin_products();
#pragma unroll
      for (int k = 0; k < KB / 32; ++k)
#pragma unroll
        for (int mi = 0; mi < MI; ++mi)
          Product<SIGNED, BN>::add(sum[mi], a + (uint64_t)(mi * 64 * KB / 16 + k * 2), b + (uint64_t)(k * 2), (step | k) != 0);
      end_products();
      wait_products<1>();
      if (before >= 0 && lane == 0) arrive(empty + 8 * before);
      before = stage;
      if (++stage == STAGES) { stage = 0; parity ^= 1; }
    }
    if (TURNS && lane == 0) arrive(turn + 8 * (worker ^ 1));
    wait_products<0>();
#pragma unroll
    for (int mi = 0; mi < MI; ++mi)
#pragma unroll
      for (int i = 0; i < BN / 2; ++i) keep(sum[mi][i]);
    if (lane == 0) arrive(empty + 8 * before);

    const int n0 = tile % p.across * BN;
#pragma unroll
    for (int mi = 0; mi < MI; ++mi) {
      // Lane 4 g + q has two columns of two rows of each eight columns; of 32 columns it is to have 16 of one row: of row g + 8 (q & 1), from 16 (q >> 1) on.
      const int m = tile / p.across * BM + (TURNS ? 0 : worker * MI * 64) + mi * 64 + (warp & 3) * 16 + (lane >> 2) + 8 * (q & 1);
#pragma unroll
      for (int n = 0; n < BN; n += 32) {
        int32_t mine[16];
#pragma unroll
        for (int j = 0; j < 4; ++j)
#pragma unroll
          for (int e = 0; e < 2; ++e) {
            // With the lane beside: the row that is its, for the one that is mine. Then of each eight columns there are four, from 4 (q >> 1) on.
            const int32_t top = sum[mi][(n / 8 + j) * 4 + e], bottom = sum[mi][(n / 8 + j) * 4 + 2 + e];
            const int32_t got = __shfl_xor_sync(~0u, q & 1 ? top : bottom, 1);
            mine[j * 4 + e] = q & 1 ? got : top;
            mine[j * 4 + 2 + e] = q & 1 ? bottom : got;
          }
        int32_t all[16];
#pragma unroll
        for (int j = 0; j < 2; ++j)
#pragma unroll
          for (int e = 0; e < 4; ++e) {
            // With the lane two further: the eights 2 and 3 for 0 and 1.
            const int32_t got = __shfl_xor_sync(~0u, q & 2 ? mine[j * 4 + e] : mine[(2 + j) * 4 + e], 2);
            const int32_t own = q & 2 ? mine[(2 + j) * 4 + e] : mine[j * 4 + e];
            all[j * 8 + e] = q & 2 ? got : own;
            all[j * 8 + 4 + e] = q & 2 ? own : got;
          }
        const int channel = n0 + n + 16 * (q >> 1);
        if (m < pixels && channel < out.pitch) finish16(p, (size_t)m, channel, all);
      }
    }
  }
}

#define HOPPER(BN, MI, KB, TURNS, NAME)                                                                                            \
  KERNEL(hopper_u8_##NAME, HopperConvolution, HOPPER_THREADS, 1) { convolve_hopper<false, BN, MI, KB, TURNS>(p); }         \
  KERNEL(hopper_s8_##NAME, HopperConvolution, HOPPER_THREADS, 1) { convolve_hopper<true, BN, MI, KB, TURNS>(p); }
// The host has the same list: crates/engine/src/cuda/ops/hopper.rs.
HOPPER(64, 2, 64, true, 128x64_64)
HOPPER(128, 2, 64, true, 128x128_64)
HOPPER(64, 1, 128, true, 64x64_128)
HOPPER(64, 2, 128, true, 128x64_128)
HOPPER(128, 2, 128, true, 128x128_128)
HOPPER(256, 1, 128, false, 128x256_128)
