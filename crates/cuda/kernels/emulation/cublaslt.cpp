// cuBLASLt on the host, for tests of whole programs: D = α·op(A)·op(B) + β·C of column-major matrices, bf16 or f32, summed
// in f32. There is one algorithm.
#include <cstdint>
#include <cstring>

namespace {

enum : int { kSuccess = 0, kInvalidValue = 7, kF32 = 0, kBf16 = 14, kTransA = 3, kTransB = 4 };

struct Layout {
  int type;
  std::uint64_t rows, columns;
  std::int64_t stride;
};

struct Description {
  int transposed[2];
};

// As cublasLt.h has it.
struct Heuristic {
  std::uint64_t algorithm[8];
  std::size_t workspace;
  int state;
  float waves;
  int reserved[4];
};

std::size_t place(const Layout& layout, std::uint64_t row, std::uint64_t column) {
  return column * static_cast<std::uint64_t>(layout.stride) + row;
}

float read(const void* matrix, const Layout& layout, std::uint64_t row, std::uint64_t column) {
  const std::size_t at = place(layout, row, column);
  if (layout.type == kF32) return static_cast<const float*>(matrix)[at];
  const std::uint32_t bits = std::uint32_t{static_cast<const std::uint16_t*>(matrix)[at]} << 16;
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

void write(void* matrix, const Layout& layout, std::uint64_t row, std::uint64_t column, float value) {
  const std::size_t at = place(layout, row, column);
  if (layout.type == kF32) {
    static_cast<float*>(matrix)[at] = value;
    return;
  }
  std::uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  // To nearest, ties to even; not a number stays so.
  const bool number = (bits & 0x7FFFFFFFu) <= 0x7F800000u;
  static_cast<std::uint16_t*>(matrix)[at] =
      static_cast<std::uint16_t>(number ? (bits + 0x7FFFu + (bits >> 16 & 1u)) >> 16 : 0x7FFFu);
}

int handle;

}  // namespace

extern "C" {

int cublasLtCreate(void** out) { return *out = &handle, kSuccess; }
int cublasLtDestroy(void*) { return kSuccess; }
int cublasLtMatrixLayoutCreate(Layout** out, int type, std::uint64_t rows, std::uint64_t columns, std::int64_t stride) {
  return *out = new Layout{type, rows, columns, stride}, kSuccess;
}
int cublasLtMatrixLayoutDestroy(Layout* layout) { return delete layout, kSuccess; }
int cublasLtMatmulDescCreate(Description** out, int, int) { return *out = new Description{{0, 0}}, kSuccess; }
int cublasLtMatmulDescDestroy(Description* description) { return delete description, kSuccess; }
int cublasLtMatmulDescSetAttribute(Description* description, int attribute, const void* value, std::size_t size) {
  if ((attribute != kTransA && attribute != kTransB) || size != sizeof(int)) return kInvalidValue;
  std::memcpy(&description->transposed[attribute == kTransB], value, size);
  return kSuccess;
}
int cublasLtMatmulPreferenceCreate(void** out) { return *out = &handle, kSuccess; }
int cublasLtMatmulPreferenceDestroy(void*) { return kSuccess; }
int cublasLtMatmulPreferenceSetAttribute(void*, int, const void*, std::size_t) { return kSuccess; }
int cublasLtMatmulAlgoGetHeuristic(void*, Description*, Layout*, Layout*, Layout*, Layout*, void*, int wanted,
                                   Heuristic* found, int* count) {
  if (wanted < 1) return kInvalidValue;
  std::memset(found, 0, sizeof *found);
  return *count = 1, kSuccess;
}
int cublasLtMatmul(void*, const Description* description, const void* alpha, const void* a, const Layout* a_layout,
                   const void* b, const Layout* b_layout, const void* beta, const void* c, const Layout* c_layout,
                   void* d, const Layout* d_layout, const void*, void*, std::size_t, void*) {
  const float by = *static_cast<const float*>(alpha), keep = *static_cast<const float*>(beta);
  const bool turned_a = description->transposed[0] != 0, turned_b = description->transposed[1] != 0;
  const std::uint64_t depth = turned_a ? a_layout->rows : a_layout->columns;
  if (depth != (turned_b ? b_layout->columns : b_layout->rows)) return kInvalidValue;
  if (d_layout->rows != (turned_a ? a_layout->columns : a_layout->rows)) return kInvalidValue;
  if (d_layout->columns != (turned_b ? b_layout->rows : b_layout->columns)) return kInvalidValue;
  for (std::uint64_t column = 0; column < d_layout->columns; ++column) {
    for (std::uint64_t row = 0; row < d_layout->rows; ++row) {
      float sum = 0.0f;
      for (std::uint64_t term = 0; term < depth; ++term) {
        const float left = turned_a ? read(a, *a_layout, term, row) : read(a, *a_layout, row, term);
        const float right = turned_b ? read(b, *b_layout, column, term) : read(b, *b_layout, term, column);
        sum += left * right;
      }
      // What is replaced has no influence, not a number even.
      const float before = keep == 0.0f ? 0.0f : keep * read(c, *c_layout, row, column);
      write(d, *d_layout, row, column, by * sum + before);
    }
  }
  return kSuccess;
}

}  // extern "C"
