// AVX-512 with VNNI as the kernels of encoder_simd.hpp take an instruction set: for the files that
// are compiled for it. Everything here has internal linkage.
#pragma once

#include <immintrin.h>

#include "encoder_simd.hpp"

namespace raxe_fast::detail {
namespace {

struct Vnni {
  using F = __m512;
  using I = __m512i;
  static constexpr std::size_t kLanes = 16;
  static constexpr std::size_t kRows = 8;
  static constexpr std::size_t kVectors = 3;  // 24 accumulators of 32 registers
  static constexpr std::size_t kHeadRows = 8;
  static constexpr std::size_t kHeadVectors = 2;

  static RAXE_INLINE F load(const float* p) noexcept { return _mm512_loadu_ps(p); }
  static RAXE_INLINE void store(float* p, F a) noexcept { _mm512_storeu_ps(p, a); }
  static RAXE_INLINE F set(float a) noexcept { return _mm512_set1_ps(a); }
  static RAXE_INLINE F add(F a, F b) noexcept { return _mm512_add_ps(a, b); }
  static RAXE_INLINE F sub(F a, F b) noexcept { return _mm512_sub_ps(a, b); }
  static RAXE_INLINE F mul(F a, F b) noexcept { return _mm512_mul_ps(a, b); }
  static RAXE_INLINE F fma(F a, F b, F c) noexcept { return _mm512_fmadd_ps(a, b, c); }
  static RAXE_INLINE F min(F a, F b) noexcept { return _mm512_min_ps(a, b); }
  static RAXE_INLINE F max(F a, F b) noexcept { return _mm512_max_ps(a, b); }
  static RAXE_INLINE F abs(F a) noexcept { return _mm512_abs_ps(a); }
  static RAXE_INLINE F to_float(I a) noexcept { return _mm512_cvtepi32_ps(a); }
  static RAXE_INLINE I to_int(F a) noexcept { return _mm512_cvtps_epi32(a); }
  static RAXE_INLINE F load_i8(const std::int8_t* p) noexcept {
    return to_float(_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))));
  }
  static RAXE_INLINE I load_int(const void* p) noexcept { return _mm512_loadu_si512(p); }
  static RAXE_INLINE void store_int(void* p, I a) noexcept { _mm512_storeu_si512(p, a); }
  static RAXE_INLINE I zero() noexcept { return _mm512_setzero_si512(); }
  static RAXE_INLINE I add_int(I a, I b) noexcept { return _mm512_add_epi32(a, b); }
  static RAXE_INLINE void store_u8(std::uint8_t* p, I a) noexcept {
    const I positive = _mm512_max_epi32(a, zero());
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtusepi32_epi8(positive));
  }
  // Heads in bytes: unsigned queries (plus 128) and weights, signed keys and values.
  using Part = std::uint8_t;
  static constexpr std::size_t kGroup = 4;
  static RAXE_INLINE void store_part(Part* p, I a) noexcept {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtsepi32_epi8(a));
  }
  static RAXE_INLINE void store_query(Part* p, I a) noexcept {
    store_u8(p, add_int(a, _mm512_set1_epi32(128)));
  }
  static RAXE_INLINE void store_weight(Part* p, I a) noexcept {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtusepi32_epi8(a));
  }
  static RAXE_INLINE void store_shift(std::int32_t* p, I keys) noexcept {
    // Unsigned: keys that were not finite may be any integers.
    *p = static_cast<std::int32_t>(0U - 128U * static_cast<unsigned>(sum_int(keys)));
  }
  static RAXE_INLINE I first_score(const std::int32_t* shift) noexcept { return load_int(shift); }
  static RAXE_INLINE I interleave(const I (&x)[4]) noexcept {
    const I byte = _mm512_set1_epi32(0xFF);
    const I low = _mm512_or_si512(_mm512_and_si512(x[0], byte),
                                  _mm512_slli_epi32(_mm512_and_si512(x[1], byte), 8));
    const I high = _mm512_or_si512(_mm512_slli_epi32(_mm512_and_si512(x[2], byte), 16),
                                   _mm512_slli_epi32(x[3], 24));
    return _mm512_or_si512(low, high);
  }
  static RAXE_INLINE I four(const void* p) noexcept {
    int value;
    __builtin_memcpy(&value, p, 4);
    return _mm512_set1_epi32(value);
  }
  // Inline assembly: GCC 12 spills the accumulators with the intrinsics, which takes twice as long.
  static RAXE_INLINE I dot(I sum, I a, I b) noexcept {
    asm("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(a), "v"(b));
    return sum;
  }
  static RAXE_INLINE F exp2(F x) noexcept {
    // No lower bound: scalef goes down to 0 by itself.
    const F whole = _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    const F r = sub(x, whole);
    F p = fma(set(kExp2[3]), r, set(kExp2[2]));
    p = fma(p, r, set(kExp2[1]));
    p = fma(p, r, set(kExp2[0]));
    return _mm512_scalef_ps(p, whole);
  }
  static RAXE_INLINE __mmask16 first(std::size_t n) noexcept {
    return static_cast<__mmask16>((1U << n) - 1U);
  }
  static RAXE_INLINE F select_tail(std::size_t n, float inside, float outside) noexcept {
    return _mm512_mask_blend_ps(first(n), set(outside), set(inside));
  }
  static RAXE_INLINE I keep_first(std::size_t n, I a) noexcept {
    return _mm512_maskz_mov_epi32(first(n), a);
  }
  static RAXE_INLINE float sum(F a) noexcept {
    const __m256 eight = _mm256_add_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps(a, 1));
    __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    four = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(four, _mm_movehdup_ps(four)));
  }
  static RAXE_INLINE float highest(F a) noexcept { return _mm512_reduce_max_ps(a); }
  static RAXE_INLINE float lowest(F a) noexcept { return _mm512_reduce_min_ps(a); }
  static RAXE_INLINE int sum_int(I a) noexcept {
    const __m256i eight =
        _mm256_add_epi32(_mm512_castsi512_si256(a), _mm512_extracti64x4_epi64(a, 1));
    __m128i four =
        _mm_add_epi32(_mm256_castsi256_si128(eight), _mm256_extracti128_si256(eight, 1));
    four = _mm_add_epi32(four, _mm_shuffle_epi32(four, 0x4E));
    return _mm_cvtsi128_si32(_mm_add_epi32(four, _mm_shuffle_epi32(four, 0xB1)));
  }

  template <std::size_t kTileRows, std::size_t kWide, bool kPrefetch>
  static RAXE_INLINE void products(const Tile& t, I (&sums)[kTileRows][kWide]) noexcept {
    constexpr std::size_t kStep = kWide * 64;
    RAXE_UNROLL(8)
    for (std::size_t r = 0; r < kTileRows; ++r) {
      RAXE_UNROLL(3)
      for (std::size_t v = 0; v < kWide; ++v) sums[r][v] = zero();
    }
    const std::int8_t* weight = t.weight;
    const std::size_t next = t.inputs * kWide * kLanes;
    RAXE_UNROLL(2)
    for (std::size_t k = 0; k < t.inputs; k += 4, weight += kStep) {
      I w[kWide];
      RAXE_UNROLL(3)
      for (std::size_t v = 0; v < kWide; ++v) {
        w[v] = load_int(weight + v * 64);
        if constexpr (kPrefetch) _mm_prefetch(weight + next + v * 64, _MM_HINT_T1);
      }
      RAXE_UNROLL(8)
      for (std::size_t r = 0; r < kTileRows; ++r) {
        const I x = four(t.x + r * t.inputs + k);
        RAXE_UNROLL(3)
        for (std::size_t v = 0; v < kWide; ++v) sums[r][v] = dot(sums[r][v], x, w[v]);
      }
    }
  }

  static RAXE_INLINE void attend_rows(std::size_t count, const HeadShape& shape,
                                      const HeadScratch& scratch, std::size_t row, float to_log2,
                                      float value_step, float* context,
                                      std::size_t stride) noexcept {
    const auto run = [&]<std::size_t kCount>() {
      detail::attend_rows<Vnni, kCount>(shape, scratch, row, to_log2, value_step, context, stride);
    };
    switch (count) {
      case 1: return run.template operator()<1>();
      case 2: return run.template operator()<2>();
      case 3: return run.template operator()<3>();
      case 4: return run.template operator()<4>();
      case 5: return run.template operator()<5>();
      case 6: return run.template operator()<6>();
      case 7: return run.template operator()<7>();
      default: return run.template operator()<8>();
    }
  }
};

}  // namespace
}  // namespace raxe_fast::detail
