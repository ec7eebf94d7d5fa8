#include <immintrin.h>

#include "clusters_kernels.hpp"

namespace raxe_fast::detail {
namespace {

constexpr std::size_t kLanes = 16;

// kRows rows at once: each load of x serves all of them, and their chains overlap.
template <std::size_t kRows>
inline void dots(const float* rows, std::size_t hidden, const float* x, float* out) noexcept {
  __m512 sum[kRows];
  for (std::size_t r = 0; r < kRows; ++r) sum[r] = _mm512_setzero_ps();
  std::size_t j = 0;
  for (; j + kLanes <= hidden; j += kLanes) {
    const __m512 value = _mm512_loadu_ps(x + j);
    for (std::size_t r = 0; r < kRows; ++r) {
      sum[r] = _mm512_fmadd_ps(_mm512_loadu_ps(rows + r * hidden + j), value, sum[r]);
    }
  }
  if (j < hidden) {
    const auto tail = static_cast<__mmask16>((1U << (hidden - j)) - 1U);
    const __m512 value = _mm512_maskz_loadu_ps(tail, x + j);
    for (std::size_t r = 0; r < kRows; ++r) {
      sum[r] = _mm512_fmadd_ps(_mm512_maskz_loadu_ps(tail, rows + r * hidden + j), value, sum[r]);
    }
  }
  for (std::size_t r = 0; r < kRows; ++r) out[r] = _mm512_reduce_add_ps(sum[r]);
}

}  // namespace

void dot_rows_avx512(const float* rows, std::size_t count, std::size_t hidden, const float* x,
                     float* out) noexcept {
  std::size_t i = 0;
  for (; i + 8 <= count; i += 8) dots<8>(rows + i * hidden, hidden, x, out + i);
  for (; i < count; ++i) dots<1>(rows + i * hidden, hidden, x, out + i);
}

}  // namespace raxe_fast::detail
