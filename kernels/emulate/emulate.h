// The kernels on a CPU, for tests where there is no device: the twins of device.cuh's functions, and what CUDA C++ has of its own.
//
// The threads of a block are fibers. They run in an order that changes, and give way where a thread waits for others: at barriers and where a warp works
// together; warps rest now and then, so that others get ahead of them. Copies land late and out of order: when their group is waited for, or at any time before. Shared memory is full of rubbish at first.
// Fragments lie as PTX documents them. It is a model of what kernels compute and of what they must wait for, not of their time.
#pragma once
#include <math.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <functional>
#include <map>
#include <vector>

#define DEVICE static inline
#define KERNEL(name, Arguments, threads, blocks)                                                                          \
  static void name(const Arguments&);                                                                                     \
  static const emulate::Registered name##_registered(#name, sizeof(Arguments), threads,                                   \
                                                     [](const void* p) { name(*(const Arguments*)p); });                  \
  static void name(const Arguments& p)
#define SHARED(name) uint8_t* name = emulate::block().shared

struct int2 { int32_t x, y; };
struct alignas(16) int4 { int32_t x, y, z, w; };
struct uint2 { uint32_t x, y; };
struct alignas(16) uint4 { uint32_t x, y, z, w; };
struct alignas(16) float4 { float x, y, z, w; };
inline int2 make_int2(int32_t x, int32_t y) { return {x, y}; }
inline uint2 make_uint2(uint32_t x, uint32_t y) { return {x, y}; }
inline uint4 make_uint4(uint32_t x, uint32_t y, uint32_t z, uint32_t w) { return {x, y, z, w}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }

namespace emulate {

struct Registered {
  Registered(const char* name, size_t arguments, uint32_t threads, void (*run)(const void*));
};

struct Index { uint32_t x, y, z; };

// A copy that is under way.
struct Copy { uint32_t to; const void* from; bool inside; };

struct Warp {
  uint8_t given[2][32][32];  // what lanes gave, 32 bytes each, of this exchange and the one before
  int arrived = 0;
  unsigned generation = 0;
};

// A barrier of Hopper in shared memory: arrivals and bytes that its phase still waits for.
struct Barrier { int count, pending, bytes, parity; };

struct Block {
  std::map<uint32_t, Barrier> barriers;
  std::vector<std::function<void()>> flying;  // copies of the copy engine that have not landed
  uint8_t* shared;
  size_t shared_bytes;
  Index index, grid;
  uint32_t threads;
  std::vector<Warp> warps;
  unsigned arrived = 0, generation = 0;
};

struct Fiber {
  jmp_buf at;
  bool started, done;
  Index thread;
  std::vector<std::vector<Copy>> groups;  // of copies that were begun; the last is not ended
  std::vector<std::vector<std::function<void()>>> products;  // the same of products of a warp group
};

Block& block();
Fiber& fiber();
// Gives way to others.
void yield();
// Now and then, where nothing makes a thread wait: what happens late on a device shall happen late.
void dawdle();
// Something happened: who waits may go on.
void progress();
[[noreturn]] void fail(const char* what);
uint32_t random(uint32_t below);

// What all lanes of the warp gave, 32 bytes each; every lane must come.
const uint8_t (*exchange(const void* mine, size_t bytes))[32];
void land(const Copy& copy);
Barrier& barrier(uint32_t at);
// The phase ends where nothing is missing.
void look_at(Barrier& barrier);

// Of 32 codes with 32 weights.
template <bool SIGNED> int32_t dot(const uint8_t* codes, const uint8_t* weights) {
  int32_t sum = 0;
  for (int k = 0; k < 32; ++k) sum += (SIGNED ? (int32_t)(int8_t)codes[k] : (int32_t)codes[k]) * (int8_t)weights[k];
  return sum;
}

}  // namespace emulate

#define threadIdx (emulate::fiber().thread)
#define blockIdx (emulate::block().index)
#define gridDim (emulate::block().grid)
#define blockDim (emulate::Index{emulate::block().threads, 1, 1})

inline void __syncthreads() {
  emulate::Block& b = emulate::block();
  const unsigned generation = b.generation;
  emulate::progress();
  if (++b.arrived == b.threads) {
    b.arrived = 0;
    b.generation++;
  } else {
    while (b.generation == generation) emulate::yield();
  }
}

inline float __int_as_float(int32_t i) { float f; memcpy(&f, &i, 4); return f; }
inline int32_t float_bits(float f) { int32_t i; memcpy(&i, &f, 4); return i; }

DEVICE uint32_t shared_address(const void* p) { return (uint32_t)((const uint8_t*)p - emulate::block().shared); }

DEVICE void copy16(uint32_t to, const void* from, bool inside) {
  if (to % 16 != 0 || (uintptr_t)from % 16 != 0) emulate::fail("a copy of 16 bytes is not aligned");
  emulate::fiber().groups.back().push_back({to, from, inside});
}
DEVICE void end_group() { emulate::fiber().groups.emplace_back(); }
template <int N> void wait_groups() {
  emulate::dawdle();
  auto& groups = emulate::fiber().groups;
  while (groups.size() - 1 > N) {
    auto& group = groups.front();
    while (!group.empty()) {
      const size_t i = emulate::random((uint32_t)group.size());
      emulate::land(group[i]);
      group.erase(group.begin() + i);
    }
    groups.erase(groups.begin());
  }
}

DEVICE void load_matrices(uint32_t address, uint32_t (&r)[4]) {
  if (address % 16 != 0) emulate::fail("a row of a matrix is not aligned");
  const auto* all = emulate::exchange(&address, 4);
  const int lane = threadIdx.x & 31;
  for (int i = 0; i < 4; ++i) {
    uint32_t row;
    memcpy(&row, all[i * 8 + lane / 4], 4);
    if (row + 16 > emulate::block().shared_bytes) emulate::fail("a matrix lies beyond shared memory");
    memcpy(&r[i], emulate::block().shared + row + lane % 4 * 4, 4);
  }
}

template <bool SIGNED> void multiply(int32_t (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  const uint32_t mine[6] = {a[0], a[1], a[2], a[3], b0, b1};
  const auto* all = emulate::exchange(mine, sizeof mine);
  const int lane = threadIdx.x & 31, g = lane >> 2, q = lane & 3;
  // Two rows of a and two columns of b, 32 each: a lane has four neighbouring ones of each half.
  uint8_t rows[2][32], columns[2][32];
  for (int one = 0; one < 2; ++one)
    for (int half = 0; half < 2; ++half)
      for (int k = 0; k < 4; ++k) {
        memcpy(rows[one] + half * 16 + k * 4, all[g * 4 + k] + (half * 2 + one) * 4, 4);
        memcpy(columns[one] + half * 16 + k * 4, all[(2 * q + one) * 4 + k] + 16 + half * 4, 4);
      }
  for (int e = 0; e < 4; ++e) c[e] += emulate::dot<SIGNED>(rows[e >> 1], columns[e & 1]);
}

// As cvt.rni.s32.f32: of no number 0, saturated.
DEVICE int32_t to_integer(float v) {
  if (v != v) return 0;
  return v >= 2147483648.f ? INT32_MAX : v < -2147483648.f ? INT32_MIN : (int32_t)lrintf(v);
}
template <bool SIGNED> uint32_t to_codes(const float (&v)[4]) {
  uint32_t codes = 0;
  for (int i = 0; i < 4; ++i) {
    const int32_t least = SIGNED ? -128 : 0, most = SIGNED ? 127 : 255, whole = to_integer(v[i]);
    codes |= (uint32_t)(uint8_t)(whole < least ? least : whole > most ? most : whole) << (8 * i);
  }
  return codes;
}

// By _Float16, which g++ rounds half to even.
DEVICE uint16_t to_half(float v) { const _Float16 h = (_Float16)v; uint16_t bits; memcpy(&bits, &h, 2); return bits; }
DEVICE float from_half(uint16_t v) { _Float16 h; memcpy(&h, &v, 2); return (float)h; }

template <class T> T __shfl_xor_sync(unsigned, T v, int mask) {
  T got;
  memcpy(&got, emulate::exchange(&v, sizeof v)[(threadIdx.x & 31) ^ mask], sizeof got);
  return got;
}
inline void __syncwarp() { emulate::exchange("", 1); }

DEVICE void fence() {}
DEVICE int32_t take_ticket(int32_t* tickets) { return (*tickets)++; }
DEVICE void add_up(uint64_t* sum, uint64_t more) { *sum += more; }
DEVICE int32_t load_fresh(const int32_t* p) { return *p; }
