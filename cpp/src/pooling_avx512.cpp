#include <immintrin.h>

#include "pooling_kernels.hpp"

namespace raxe_fast::detail {
namespace {

constexpr std::size_t kLanes = 16;

// Sums kVectors * 16 columns over the tokens in registers; each pass reads every row once.
// 24 accumulators hold a whole row of 384, so a MiniLM window is read exactly front to back.
template <std::size_t kVectors>
inline void sum_columns(const float* tokens, std::size_t count, std::size_t hidden,
                        const std::uint8_t* mask, float* out) noexcept {
  __m512 sum[kVectors];
  for (std::size_t v = 0; v < kVectors; ++v) sum[v] = _mm512_setzero_ps();
  for (std::size_t i = 0; i < count; ++i) {
    if (mask != nullptr && mask[i] == 0) continue;
    const float* row = tokens + i * hidden;
    for (std::size_t v = 0; v < kVectors; ++v) {
      sum[v] = _mm512_add_ps(sum[v], _mm512_loadu_ps(row + v * kLanes));
    }
  }
  for (std::size_t v = 0; v < kVectors; ++v) _mm512_storeu_ps(out + v * kLanes, sum[v]);
}

// The last, partial vector of a row.
inline void sum_tail(const float* tokens, std::size_t count, std::size_t hidden,
                     const std::uint8_t* mask, __mmask16 lanes, float* out) noexcept {
  __m512 sum = _mm512_setzero_ps();
  for (std::size_t i = 0; i < count; ++i) {
    if (mask != nullptr && mask[i] == 0) continue;
    sum = _mm512_add_ps(sum, _mm512_maskz_loadu_ps(lanes, tokens + i * hidden));
  }
  _mm512_mask_storeu_ps(out, lanes, sum);
}

}  // namespace

void mean_pool_l2_avx512(const float* tokens, std::size_t count, std::size_t hidden,
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

  const auto tail = static_cast<__mmask16>((1U << (hidden % kLanes)) - 1U);
  std::size_t j = 0;
  for (; j + 24 * kLanes <= hidden; j += 24 * kLanes) {
    sum_columns<24>(tokens + j, count, hidden, mask, out + j);
  }
  for (; j + 8 * kLanes <= hidden; j += 8 * kLanes) {
    sum_columns<8>(tokens + j, count, hidden, mask, out + j);
  }
  for (; j + kLanes <= hidden; j += kLanes) {
    sum_columns<1>(tokens + j, count, hidden, mask, out + j);
  }
  if (tail != 0) sum_tail(tokens + j, count, hidden, mask, tail, out + j);

  const __m512 divisors = _mm512_set1_ps(static_cast<float>(used));
  __m512d squares0 = _mm512_setzero_pd();
  __m512d squares1 = _mm512_setzero_pd();
  for (j = 0; j < hidden; j += kLanes) {
    const __mmask16 lanes = j + kLanes <= hidden ? static_cast<__mmask16>(0xFFFF) : tail;
    const __m512 mean = _mm512_div_ps(_mm512_maskz_loadu_ps(lanes, out + j), divisors);
    _mm512_mask_storeu_ps(out + j, lanes, mean);
    const __m512d low = _mm512_cvtps_pd(_mm512_castps512_ps256(mean));
    const __m512d high = _mm512_cvtps_pd(_mm512_extractf32x8_ps(mean, 1));
    squares0 = _mm512_fmadd_pd(low, low, squares0);
    squares1 = _mm512_fmadd_pd(high, high, squares1);
  }
  const double norm = __builtin_sqrt(_mm512_reduce_add_pd(_mm512_add_pd(squares0, squares1)));
  const __m512d scales = _mm512_set1_pd(1.0 / (norm < 1e-12 ? 1e-12 : norm));
  for (j = 0; j < hidden; j += 8) {
    const auto lanes = j + 8 <= hidden ? static_cast<__mmask8>(0xFF)
                                       : static_cast<__mmask8>((1U << (hidden - j)) - 1U);
    const __m512d mean = _mm512_cvtps_pd(_mm256_maskz_loadu_ps(lanes, out + j));
    _mm256_mask_storeu_ps(out + j, lanes, _mm512_cvtpd_ps(_mm512_mul_pd(mean, scales)));
  }
}

}  // namespace raxe_fast::detail
