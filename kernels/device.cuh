// The instructions that kernels use, one small function each, and nothing else. A build for the CPU takes their twins from emulate/emulate.h.
#pragma once
#include <stdint.h>

#ifdef VULTUS_EMULATED
#include "emulate/emulate.h"
#else

#include <cuda_fp16.h>

#define DEVICE static __device__ __forceinline__
// A kernel: its name, the type of its one argument `p`, threads of a block, and blocks that a multiprocessor is to hold.
#define KERNEL(name, Arguments, threads, blocks) \
  extern "C" __global__ void __launch_bounds__(threads, blocks) name(const __grid_constant__ Arguments p)
// The block's dynamic shared memory.
#define SHARED(name) extern __shared__ __align__(1024) uint8_t name[]

DEVICE uint32_t shared_address(const void* p) { return (uint32_t)__cvta_generic_to_shared(p); }

// 16 bytes from global to shared memory, or zeros; done when its group was waited for.
DEVICE void copy16(uint32_t to, const void* from, bool inside) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(inside ? 16 : 0) : "memory");
}
// The copies since the last group are a group.
DEVICE void end_group() { asm volatile("cp.async.commit_group;" ::: "memory"); }
// Waits until no more than the last N groups of this thread are under way.
template <int N> DEVICE void wait_groups() { asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory"); }

// Four matrices of 8 rows of 16 bytes: lane i gives the address of row i % 8 of matrix i / 8, and gets bytes 4 (i % 4) to 4 (i % 4) + 3 of row i / 4 of
// each.
DEVICE void load_matrices(uint32_t address, uint32_t (&r)[4]) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(address) : "memory");
}

// c += a * b: 16 x 32 codes with or without a sign times 32 x 8 weights, over the warp. Lane 4 g + q holds of c the elements (g, 2q), (g, 2q + 1),
// (g + 8, 2q), (g + 8, 2q + 1).
template <bool SIGNED> DEVICE void multiply(int32_t (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  if constexpr (SIGNED) {
    asm volatile("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3]) : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
  } else {
    asm volatile("mma.sync.aligned.m16n8k32.row.col.s32.u8.s8.s32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3]) : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
  }
}

// Four numbers as codes, rounded half to even and saturated, of no number 0; the first in the lowest byte.
template <bool SIGNED> DEVICE uint32_t to_codes(const float (&v)[4]) {
  uint32_t low;
  uint32_t codes;
  const int32_t i0 = __float2int_rn(v[0]), i1 = __float2int_rn(v[1]), i2 = __float2int_rn(v[2]), i3 = __float2int_rn(v[3]);
  if constexpr (SIGNED) {
    asm("cvt.pack.sat.s8.s32.b32 %0, %1, %2, 0;" : "=r"(low) : "r"(i3), "r"(i2));
    asm("cvt.pack.sat.s8.s32.b32 %0, %1, %2, %3;" : "=r"(codes) : "r"(i1), "r"(i0), "r"(low));
  } else {
    asm("cvt.pack.sat.u8.s32.b32 %0, %1, %2, 0;" : "=r"(low) : "r"(i3), "r"(i2));
    asm("cvt.pack.sat.u8.s32.b32 %0, %1, %2, %3;" : "=r"(codes) : "r"(i1), "r"(i0), "r"(low));
  }
  return codes;
}

// Binary16, rounded half to even; of finite numbers within its range.
DEVICE uint16_t to_half(float v) { return __half_as_ushort(__float2half_rn(v)); }
DEVICE float from_half(uint16_t v) { return __half2float(__ushort_as_half(v)); }

// What this block stored is seen by others before what it stores after.
DEVICE void fence() { __threadfence(); }
// Adds one, gives what was there before.
DEVICE int32_t take_ticket(int32_t* tickets) { return atomicAdd(tickets, 1); }
DEVICE void add_up(uint64_t* sum, uint64_t more) { atomicAdd((unsigned long long*)sum, (unsigned long long)more); }
// A value that another block stored, past this multiprocessor's cache.
DEVICE int32_t load_fresh(const int32_t* p) { return __ldcg(p); }

#endif
