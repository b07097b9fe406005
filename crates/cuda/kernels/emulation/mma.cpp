#include "mma.h"

#include <cstring>

namespace emulation {
namespace {

// One of the two bf16 of a word.
float value(unsigned word, unsigned half) {
  const unsigned bits = half ? word & 0xFFFF0000u : word << 16;
  float x;
  std::memcpy(&x, &bits, sizeof x);
  return x;
}

}  // namespace

void multiply_add_together(void* const (&lanes)[WARP]) {
  // b by rows of k, so that a row of c is made of vectors of eight.
  float left[16][16], right[16][8], product[16][8] = {};
  for (unsigned l = 0; l < WARP; ++l) {
    const MultiplyAdd* lane = static_cast<const MultiplyAdd*>(lanes[l]);
    const unsigned group = l / 4, pair = l % 4 * 2;
    for (unsigned half = 0; half < 2; ++half) {
      left[group][pair + half] = value(lane->a[0], half);
      left[group + 8][pair + half] = value(lane->a[1], half);
      left[group][pair + 8 + half] = value(lane->a[2], half);
      left[group + 8][pair + 8 + half] = value(lane->a[3], half);
      right[pair + half][group] = value(lane->b[0], half);
      right[pair + 8 + half][group] = value(lane->b[1], half);
    }
  }
  for (unsigned row = 0; row < 16; ++row) {
    for (unsigned k = 0; k < 16; ++k) {
      for (unsigned column = 0; column < 8; ++column) product[row][column] += left[row][k] * right[k][column];
    }
  }
  for (unsigned l = 0; l < WARP; ++l) {
    const MultiplyAdd* lane = static_cast<const MultiplyAdd*>(lanes[l]);
    for (unsigned i = 0; i < 4; ++i) lane->c[i] += product[l / 4 + i / 2 * 8][l % 4 * 2 + i % 2];
  }
}

}  // namespace emulation
