// The product of a warp's tensor cores, in a file of its own that is compiled for speed.
#pragma once

namespace emulation {

constexpr unsigned WARP = 32;

// What a lane brings: its parts of c, a and b as PTX's mma.m16n8k16 lays them out.
struct MultiplyAdd {
  float* c;
  const unsigned* a;
  unsigned b[2];
};

// c += a · b, for all lanes at once; `lanes` are MultiplyAdds.
void multiply_add_together(void* const (&lanes)[WARP]);

}  // namespace emulation
