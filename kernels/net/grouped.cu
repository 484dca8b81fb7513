// Convolutions in groups: depthwise, where a thread sums four channels of a pixel at once; and any other, where it takes them one after the other.
#include "result.cuh"

KERNEL(depthwise, Grouped, 128, 4) {
  const Four four = four_of_thread(p.result);
  if (!four.inside) return;
  int32_t sum[4] = {0, 0, 0, 0};
  const bool is_signed = p.x.form == FORM_S8;
  for (int r = 0; r < p.slide.height; ++r) {
    const int row = four.row * p.slide.stride - p.slide.top + r;
    if ((unsigned)row >= (unsigned)p.x.height) continue;
    for (int s = 0; s < p.slide.width; ++s) {
      const int column = four.column * p.slide.stride - p.slide.left + s;
      if ((unsigned)column >= (unsigned)p.x.width) continue;
      const size_t at = (((size_t)four.image * p.x.height + row) * p.x.width + column) * p.x.pitch + four.channel;
      const uint32_t codes = *(const uint32_t*)((const uint8_t*)p.x.data + at);
      const uint32_t weights = *(const uint32_t*)(p.weight + (size_t)(r * p.slide.width + s) * p.result.pitch + four.channel);
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const uint8_t code = (uint8_t)(codes >> (8 * i));
        sum[i] += (is_signed ? (int32_t)(int8_t)code : (int32_t)code) * (int8_t)(weights >> (8 * i));
      }
    }
  }
  finish4(p.result, p.scale, p.bias, p.residual, p.activation, four.pixel, four.channel, sum);
}

KERNEL(grouped, Grouped, 128, 4) {
  const Four four = four_of_thread(p.result);
  if (!four.inside) return;
  int32_t sum[4] = {0, 0, 0, 0};
  const bool is_signed = p.x.form == FORM_S8;
  const int ins = p.x.channels / p.groups, outs = p.result.channels / p.groups;
  for (int r = 0; r < p.slide.height; ++r) {
    const int row = four.row * p.slide.stride - p.slide.top + r;
    if ((unsigned)row >= (unsigned)p.x.height) continue;
    for (int s = 0; s < p.slide.width; ++s) {
      const int column = four.column * p.slide.stride - p.slide.left + s;
      if ((unsigned)column >= (unsigned)p.x.width) continue;
      const uint8_t* codes = (const uint8_t*)p.x.data + (((size_t)four.image * p.x.height + row) * p.x.width + column) * p.x.pitch;
      for (int i = 0; i < 4; ++i) {
        const int channel = four.channel + i;
        if (channel >= p.result.channels) break;
        const uint8_t* of_group = codes + channel / outs * ins;
        const int8_t* weight = p.weight + (size_t)(r * p.slide.width + s) * ins * p.result.pitch + channel;
        for (int c = 0; c < ins; ++c) {
          sum[i] += (is_signed ? (int32_t)(int8_t)of_group[c] : (int32_t)of_group[c]) * weight[(size_t)c * p.result.pitch];
        }
      }
    }
  }
  finish4(p.result, p.scale, p.bias, p.residual, p.activation, four.pixel, four.channel, sum);
}
