// Values that stay as they are, elsewhere: with zeros around them and in added channels, one channel in many, or as a vector (channel, row, column).
#include "result.cuh"

KERNEL(move, Move, 128, 4) {
  const Four four = four_of_thread(p.result);
  if (!four.inside) return;
  float v[4];
  for (int i = 0; i < 4; ++i) {
    int channel = four.channel + i, row = four.row - p.top, column = four.column - p.left;
    if (p.kind == REPEAT) channel = 0;
    if (p.kind == FLATTEN) {
      const int area = p.x.height * p.x.width, place = channel % area;
      channel /= area;
      row = place / p.x.width;
      column = place % p.x.width;
    }
    const bool inside = channel < p.x.channels && (unsigned)row < (unsigned)p.x.height && (unsigned)column < (unsigned)p.x.width;
    v[i] = inside ? read1(p.x, (((size_t)four.image * p.x.height + row) * p.x.width + column) * p.x.pitch + channel) : 0.f;
  }
  emit4(p.result, four.pixel, four.channel, v);
}
