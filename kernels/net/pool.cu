// The greatest value under a window, or the mean of all, row by row.
#include "result.cuh"

KERNEL(pool, Pool, 128, 4) {
  const Four four = four_of_thread(p.result);
  if (!four.inside) return;
  const bool mean = p.share != 0;
  const float start = mean ? 0.f : -__int_as_float(0x7f800000);
  float v[4] = {start, start, start, start};
  for (int r = 0; r < p.slide.height; ++r) {
    const int row = four.row * p.slide.stride - p.slide.top + r;
    if ((unsigned)row >= (unsigned)p.x.height) continue;
    for (int s = 0; s < p.slide.width; ++s) {
      const int column = four.column * p.slide.stride - p.slide.left + s;
      if ((unsigned)column >= (unsigned)p.x.width) continue;
      float x[4];
      read4(p.x, (((size_t)four.image * p.x.height + row) * p.x.width + column) * p.x.pitch + four.channel, x);
#pragma unroll
      for (int i = 0; i < 4; ++i) v[i] = mean ? v[i] + x[i] : x[i] > v[i] ? x[i] : v[i];
    }
  }
  if (mean) {
#pragma unroll
    for (int i = 0; i < 4; ++i) v[i] = v[i] * p.share;
  }
  emit4(p.result, four.pixel, four.channel, v);
}
