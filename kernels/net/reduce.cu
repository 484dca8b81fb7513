// Over the channels of a pixel, one after the other in f64: their sum, or their length. One thread a pixel: the order of additions is the specification's.
#include "result.cuh"

KERNEL(reduce, Reduce, 128, 4) {
  const size_t pixel = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
  if (pixel >= (size_t)p.result.images * p.result.height * p.result.width) return;
  double sum = 0;
  for (int c = 0; c < p.x.channels; ++c) {
    const double x = read1(p.x, pixel * p.x.pitch + c);
    sum = sum + (p.squares ? x * x : x);
  }
  const float of_all = (float)(p.squares ? sqrt(sum) : sum);
  const float none[4] = {0, 0, 0, 0}, v[4] = {of_all, 0, 0, 0};
  emit4(p.result, pixel, 0, v);
  for (int channel = 4; channel < p.result.pitch; channel += 4) emit4(p.result, pixel, channel, none);
}
