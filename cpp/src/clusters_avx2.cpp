#include <immintrin.h>

#include "clusters_kernels.hpp"

namespace raxe_fast::detail {
namespace {

constexpr std::size_t kLanes = 8;

inline float reduce(__m256 v) noexcept {
  __m128 sum = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  sum = _mm_add_ps(sum, _mm_movehl_ps(sum, sum));
  return _mm_cvtss_f32(_mm_add_ss(sum, _mm_shuffle_ps(sum, sum, 1)));
}

// kRows rows at once: each load of x serves all of them, and their chains overlap.
template <std::size_t kRows>
inline void dots(const float* rows, std::size_t hidden, const float* x, float* out) noexcept {
  __m256 sum[kRows];
  for (std::size_t r = 0; r < kRows; ++r) sum[r] = _mm256_setzero_ps();
  std::size_t j = 0;
  for (; j + kLanes <= hidden; j += kLanes) {
    const __m256 value = _mm256_loadu_ps(x + j);
    for (std::size_t r = 0; r < kRows; ++r) {
      sum[r] = _mm256_fmadd_ps(_mm256_loadu_ps(rows + r * hidden + j), value, sum[r]);
    }
  }
  for (std::size_t r = 0; r < kRows; ++r) out[r] = reduce(sum[r]);
  for (; j < hidden; ++j) {
    for (std::size_t r = 0; r < kRows; ++r) out[r] += rows[r * hidden + j] * x[j];
  }
}

}  // namespace

void dot_rows_avx2(const float* rows, std::size_t count, std::size_t hidden, const float* x,
                   float* out) noexcept {
  std::size_t i = 0;
  for (; i + 8 <= count; i += 8) dots<8>(rows + i * hidden, hidden, x, out + i);
  for (; i < count; ++i) dots<1>(rows + i * hidden, hidden, x, out + i);
}

}  // namespace raxe_fast::detail
