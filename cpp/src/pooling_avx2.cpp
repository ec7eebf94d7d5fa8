#include <immintrin.h>

#include "pooling_kernels.hpp"

namespace raxe_fast::detail {
namespace {

constexpr std::size_t kLanes = 8;

// Sums kVectors * 8 columns over the tokens in registers; each pass reads every row once.
template <std::size_t kVectors>
inline void sum_columns(const float* tokens, std::size_t count, std::size_t hidden,
                        const std::uint8_t* mask, float* out) noexcept {
  __m256 sum[kVectors];
  for (std::size_t v = 0; v < kVectors; ++v) sum[v] = _mm256_setzero_ps();
  for (std::size_t i = 0; i < count; ++i) {
    if (mask != nullptr && mask[i] == 0) continue;
    const float* row = tokens + i * hidden;
    for (std::size_t v = 0; v < kVectors; ++v) {
      sum[v] = _mm256_add_ps(sum[v], _mm256_loadu_ps(row + v * kLanes));
    }
  }
  for (std::size_t v = 0; v < kVectors; ++v) _mm256_storeu_ps(out + v * kLanes, sum[v]);
}

}  // namespace

void mean_pool_l2_avx2(const float* tokens, std::size_t count, std::size_t hidden,
                       const std::uint8_t* mask, float* out) noexcept {
  std::size_t used = count;
  if (mask != nullptr) {
    used = 0;
    for (std::size_t i = 0; i < count; ++i) used += mask[i] != 0 ? 1U : 0U;
  }
  if (used == 0) {
    for (std::size_t j = 0; j < hidden; ++j) out[j] = 0.0F;
    return;
  }

  std::size_t j = 0;
  for (; j + 12 * kLanes <= hidden; j += 12 * kLanes) {
    sum_columns<12>(tokens + j, count, hidden, mask, out + j);
  }
  for (; j + kLanes <= hidden; j += kLanes) {
    sum_columns<1>(tokens + j, count, hidden, mask, out + j);
  }
  for (; j < hidden; ++j) {
    float sum = 0.0F;
    for (std::size_t i = 0; i < count; ++i) {
      if (mask == nullptr || mask[i] != 0) sum += tokens[i * hidden + j];
    }
    out[j] = sum;
  }

  const auto divisor = static_cast<float>(used);
  const __m256 divisors = _mm256_set1_ps(divisor);
  __m256d squares0 = _mm256_setzero_pd();
  __m256d squares1 = _mm256_setzero_pd();
  for (j = 0; j + kLanes <= hidden; j += kLanes) {
    const __m256 mean = _mm256_div_ps(_mm256_loadu_ps(out + j), divisors);
    _mm256_storeu_ps(out + j, mean);
    const __m256d low = _mm256_cvtps_pd(_mm256_castps256_ps128(mean));
    const __m256d high = _mm256_cvtps_pd(_mm256_extractf128_ps(mean, 1));
    squares0 = _mm256_fmadd_pd(low, low, squares0);
    squares1 = _mm256_fmadd_pd(high, high, squares1);
  }
  const __m256d squares = _mm256_add_pd(squares0, squares1);
  const __m128d pair =
      _mm_add_pd(_mm256_castpd256_pd128(squares), _mm256_extractf128_pd(squares, 1));
  double square = _mm_cvtsd_f64(_mm_add_sd(pair, _mm_unpackhi_pd(pair, pair)));
  for (; j < hidden; ++j) {
    out[j] /= divisor;
    square += static_cast<double>(out[j]) * static_cast<double>(out[j]);
  }

  const double norm = __builtin_sqrt(square);
  const double scale = 1.0 / (norm < 1e-12 ? 1e-12 : norm);
  const __m256d scales = _mm256_set1_pd(scale);
  for (j = 0; j + 4 <= hidden; j += 4) {
    const __m256d mean = _mm256_cvtps_pd(_mm_loadu_ps(out + j));
    _mm_storeu_ps(out + j, _mm256_cvtpd_ps(_mm256_mul_pd(mean, scales)));
  }
  for (; j < hidden; ++j) out[j] = static_cast<float>(static_cast<double>(out[j]) * scale);
}

}  // namespace raxe_fast::detail
