// Hopper's instructions on a CPU: the twins of hopper.cuh. Copies of the copy engine land late and in any order, products are computed when they are waited
// for. Tensor maps are those of the fake driver (crates/cuda/src/driver/fake/calls.rs).
#pragma once
#include "emulate.h"

DEVICE void make_barrier(uint32_t barrier, int count) {
  if (barrier % 8 != 0) emulate::fail("a barrier is not aligned");
  emulate::block().barriers[barrier] = {count, count, 0, 0};
}
DEVICE void barriers_are_made() {}
DEVICE void arrive(uint32_t barrier) {
  emulate::Barrier& b = emulate::barrier(barrier);
  b.pending--;
  emulate::look_at(b);
}
DEVICE void announce(uint32_t barrier, int bytes) {
  emulate::Barrier& b = emulate::barrier(barrier);
  b.bytes += bytes;
  b.pending--;
  emulate::look_at(b);
}
DEVICE void await(uint32_t barrier, int parity) {
  while (emulate::barrier(barrier).parity == parity) emulate::yield();
}

// As a fake driver writes it: numbers in the order of its structures.
struct WindowMap { uint64_t kind, address, images, height, width, channels; int64_t left, top, right, bottom; uint64_t stride, pixels, bytes; };
struct RowMap { uint64_t kind, address, rows, row_bytes, box, bytes; };

// Bytes of rows of `row` are turned among each other, 16 at a time, so that columns fall into different banks.
DEVICE uint32_t turned(uint32_t address, uint32_t row) { return address ^ (((address >> 7) & (row / 16 - 1)) << 4); }

DEVICE void fly(std::vector<uint8_t> bytes, uint32_t to, uint32_t row, uint32_t barrier) {
  if (to % 1024 != 0) emulate::fail("a tile does not begin at a multiple of 1024");
  if (to + bytes.size() > emulate::block().shared_bytes) emulate::fail("a tile reaches beyond shared memory");
  emulate::block().flying.push_back([=] {
    uint8_t* shared = emulate::block().shared;
    for (uint32_t i = 0; i < bytes.size(); ++i) shared[turned(to + i, row)] = bytes[i];
    emulate::Barrier& b = emulate::barrier(barrier);
    b.bytes -= (int)bytes.size();
    emulate::look_at(b);
  });
}

DEVICE void copy_windows(uint32_t to, const TensorMap* map, uint32_t barrier, int c, int w, int h, int n, uint16_t right, uint16_t down) {
  WindowMap m;
  memcpy(&m, map, sizeof m);
  if (m.kind != 1) emulate::fail("not a map of windows");
  std::vector<uint8_t> bytes(m.pixels * m.bytes, 0);
  for (uint64_t i = 0; i < m.pixels; ++i) {
    const int x = w + right, y = h + down;
    const bool inside = n >= 0 && n < (int64_t)m.images && x >= 0 && x < (int64_t)m.width && y >= 0 && y < (int64_t)m.height;
    if (inside) memcpy(&bytes[i * m.bytes], (const uint8_t*)m.address + (((uint64_t)n * m.height + y) * m.width + x) * m.channels + c, m.bytes);
    w += (int)m.stride;
    if (w > (int64_t)m.width - 1 + m.right) {
      w = (int)m.left;
      h += (int)m.stride;
    }
    if (h > (int64_t)m.height - 1 + m.bottom) {
      h = (int)m.top;
      ++n;
    }
  }
  fly(bytes, to, (uint32_t)m.bytes, barrier);
}

DEVICE void copy_rows(uint32_t to, const TensorMap* map, uint32_t barrier, int x, int y) {
  RowMap m;
  memcpy(&m, map, sizeof m);
  if (m.kind != 2) emulate::fail("not a map of rows");
  std::vector<uint8_t> bytes(m.box * m.bytes, 0);
  for (uint64_t i = 0; i < m.box; ++i)
    if (y + i < m.rows && (uint64_t)x + m.bytes <= m.row_bytes) memcpy(&bytes[i * m.bytes], (const uint8_t*)m.address + (y + i) * m.row_bytes + x, m.bytes);
  fly(bytes, to, (uint32_t)m.bytes, barrier);
}
DEVICE void prefetch_map(const TensorMap*) {}

template <int N> void give_registers() {}
template <int N> void take_registers() {}
DEVICE void begin_products() { emulate::exchange("", 1); }
DEVICE void end_products() { emulate::fiber().products.emplace_back(); }
template <int N> void wait_products() {
  // All lanes of a warp at once, as for all instructions of products.
  emulate::dawdle();
  emulate::exchange("", 1);
  auto& products = emulate::fiber().products;
  while (products.size() - 1 > N) {
    for (const auto& product : products.front()) product();
    products.erase(products.begin());
  }
}
DEVICE void keep(int32_t&) {}

template <int KB> uint64_t descriptor(uint32_t address) { return (uint64_t)(KB == 128 ? 1 : 2) << 62 | uint64_t(8 * KB / 16) << 32 | (address >> 4 & 0x3fff); }

template <bool SIGNED, int N> struct Product {
  static void add(int32_t (&d)[N / 2], uint64_t a, uint64_t b, int more) {
    int32_t* sums = d;
    emulate::fiber().products.back().push_back([=] {
      const int lane = threadIdx.x & 31, g = lane >> 2, q = lane & 3, warp = threadIdx.x / 32 & 3;
      const uint8_t* shared = emulate::block().shared;
      auto row = [&](uint64_t matrix, int r, uint8_t* to) {
        const uint32_t kb = matrix >> 62 == 1 ? 128 : 64, start = (uint32_t)(matrix & 0x3fff) << 4, eight = (uint32_t)(matrix >> 32 & 0x3fff) << 4;
        for (uint32_t k = 0; k < 32; k += 16) memcpy(to + k, shared + turned(start + r / 8 * eight + r % 8 * kb + k, kb), 16);
      };
      uint8_t rows[2][32], column[32];
      row(a, warp * 16 + g, rows[0]);
      row(a, warp * 16 + g + 8, rows[1]);
      for (int j = 0; j < N / 8; ++j)
        for (int e = 0; e < 2; ++e) {
          row(b, j * 8 + 2 * q + e, column);
          for (int half = 0; half < 2; ++half) {
            int32_t& sum = sums[4 * j + 2 * half + e];
            sum = (more ? sum : 0) + emulate::dot<SIGNED>(rows[half], column);
          }
        }
    });
  }
};
