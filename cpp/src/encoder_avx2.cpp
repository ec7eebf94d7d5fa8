#include <immintrin.h>

#include "encoder_simd.hpp"

namespace raxe_fast::detail {
namespace {

struct Avx2 {
  using F = __m256;
  using I = __m256i;
  static constexpr std::size_t kLanes = 8;
  static constexpr std::size_t kRows = 4;
  static constexpr std::size_t kVectors = 2;  // with three, accumulators are spilled
  static constexpr std::size_t kHeadRows = 4;
  static constexpr std::size_t kHeadVectors = 2;

  static RAXE_INLINE F load(const float* p) noexcept { return _mm256_loadu_ps(p); }
  static RAXE_INLINE void store(float* p, F a) noexcept { _mm256_storeu_ps(p, a); }
  static RAXE_INLINE F set(float a) noexcept { return _mm256_set1_ps(a); }
  static RAXE_INLINE F add(F a, F b) noexcept { return _mm256_add_ps(a, b); }
  static RAXE_INLINE F sub(F a, F b) noexcept { return _mm256_sub_ps(a, b); }
  static RAXE_INLINE F mul(F a, F b) noexcept { return _mm256_mul_ps(a, b); }
  static RAXE_INLINE F fma(F a, F b, F c) noexcept { return _mm256_fmadd_ps(a, b, c); }
  static RAXE_INLINE F min(F a, F b) noexcept { return _mm256_min_ps(a, b); }
  static RAXE_INLINE F max(F a, F b) noexcept { return _mm256_max_ps(a, b); }
  static RAXE_INLINE F abs(F a) noexcept { return _mm256_andnot_ps(set(-0.0F), a); }
  static RAXE_INLINE F to_float(I a) noexcept { return _mm256_cvtepi32_ps(a); }
  static RAXE_INLINE I to_int(F a) noexcept { return _mm256_cvtps_epi32(a); }
  static RAXE_INLINE F load_i8(const std::int8_t* p) noexcept {
    return to_float(_mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p))));
  }
  static RAXE_INLINE I load_int(const void* p) noexcept {
    return _mm256_loadu_si256(static_cast<const __m256i*>(p));
  }
  static RAXE_INLINE void store_int(void* p, I a) noexcept {
    _mm256_storeu_si256(static_cast<__m256i*>(p), a);
  }
  static RAXE_INLINE I zero() noexcept { return _mm256_setzero_si256(); }
  static RAXE_INLINE I add_int(I a, I b) noexcept { return _mm256_add_epi32(a, b); }
  static RAXE_INLINE __m128i narrow(I a) noexcept {
    return _mm_packs_epi32(_mm256_castsi256_si128(a), _mm256_extracti128_si256(a, 1));
  }
  static RAXE_INLINE void store_u8(std::uint8_t* p, I a) noexcept {
    const __m128i words = narrow(a);
    _mm_storel_epi64(reinterpret_cast<__m128i*>(p), _mm_packus_epi16(words, words));
  }
  // Heads in int16: products of unsigned and signed bytes of 8 bits each would saturate.
  using Part = std::int16_t;
  static constexpr std::size_t kGroup = 2;
  static RAXE_INLINE void store_part(Part* p, I a) noexcept {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), narrow(a));
  }
  static RAXE_INLINE void store_query(Part* p, I a) noexcept { store_part(p, a); }
  static RAXE_INLINE void store_weight(Part* p, I a) noexcept { store_part(p, a); }
  static RAXE_INLINE void store_shift(std::int32_t*, I) noexcept {}
  static RAXE_INLINE I first_score(const std::int32_t*) noexcept { return zero(); }
  static RAXE_INLINE I interleave(const I (&x)[2]) noexcept {
    return _mm256_blend_epi16(x[0], _mm256_slli_epi32(x[1], 16), 0xAA);
  }
  static RAXE_INLINE I four(const void* p) noexcept {
    int value;
    __builtin_memcpy(&value, p, 4);
    return _mm256_set1_epi32(value);
  }
  static RAXE_INLINE I dot(I sum, I a, I b) noexcept {
    return add_int(sum, _mm256_madd_epi16(a, b));
  }
  static RAXE_INLINE F exp2(F x) noexcept {
    x = max(x, set(kExp2Lowest));
    const F whole = _mm256_round_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    const F r = sub(x, whole);
    F p = fma(set(kExp2[3]), r, set(kExp2[2]));
    p = fma(p, r, set(kExp2[1]));
    p = fma(p, r, set(kExp2[0]));
    return _mm256_castsi256_ps(
        add_int(_mm256_castps_si256(p), _mm256_slli_epi32(to_int(whole), 23)));
  }
  static RAXE_INLINE I first(std::size_t n) noexcept {
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(n)),
                              _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
  }
  static RAXE_INLINE F select_tail(std::size_t n, float inside, float outside) noexcept {
    return _mm256_blendv_ps(set(outside), set(inside), _mm256_castsi256_ps(first(n)));
  }
  static RAXE_INLINE I keep_first(std::size_t n, I a) noexcept {
    return _mm256_and_si256(first(n), a);
  }
  static RAXE_INLINE float sum(F a) noexcept {
    __m128 four = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    four = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(four, _mm_movehdup_ps(four)));
  }
  static RAXE_INLINE float highest(F a) noexcept {
    __m128 four = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    four = _mm_max_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_max_ss(four, _mm_movehdup_ps(four)));
  }
  static RAXE_INLINE float lowest(F a) noexcept {
    __m128 four = _mm_min_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    four = _mm_min_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_min_ss(four, _mm_movehdup_ps(four)));
  }
  static RAXE_INLINE int sum_int(I a) noexcept {
    __m128i four = _mm_add_epi32(_mm256_castsi256_si128(a), _mm256_extracti128_si256(a, 1));
    four = _mm_add_epi32(four, _mm_shuffle_epi32(four, 0x4E));
    return _mm_cvtsi128_si32(_mm_add_epi32(four, _mm_shuffle_epi32(four, 0xB1)));
  }

  // Products of bytes, summed by twos into int16: with weights of 7 bits they fit. The packing sees
  // to it that even two such sums fit, so every other widening to int32 is saved.
  template <std::size_t kTileRows, std::size_t kWide, bool kPrefetch>
  static RAXE_INLINE void products(const Tile& t, I (&sums)[kTileRows][kWide]) noexcept {
    constexpr std::size_t kStep = kWide * 32;
    const I ones = _mm256_set1_epi16(1);
    RAXE_UNROLL(4)
    for (std::size_t r = 0; r < kTileRows; ++r) {
      RAXE_UNROLL(2)
      for (std::size_t v = 0; v < kWide; ++v) sums[r][v] = zero();
    }
    const std::int8_t* weight = t.weight;
    const std::size_t next = t.inputs * kWide * kLanes;
    for (std::size_t k = 0; k < t.inputs; k += 8, weight += 2 * kStep) {
      if constexpr (kPrefetch) {
        RAXE_UNROLL(2)
        for (std::size_t v = 0; v < kWide; ++v) {
          _mm_prefetch(weight + next + v * 64, _MM_HINT_T0);
        }
      }
      RAXE_UNROLL(4)
      for (std::size_t r = 0; r < kTileRows; ++r) {
        const I x0 = four(t.x + r * t.inputs + k);
        const I x1 = four(t.x + r * t.inputs + k + 4);
        RAXE_UNROLL(2)
        for (std::size_t v = 0; v < kWide; ++v) {
          const I low = _mm256_maddubs_epi16(x0, load_int(weight + v * 32));
          const I high = _mm256_maddubs_epi16(x1, load_int(weight + kStep + v * 32));
          const I words = _mm256_add_epi16(low, high);
          sums[r][v] = add_int(sums[r][v], _mm256_madd_epi16(words, ones));
        }
      }
    }
    weight = t.late_weight;
    for (std::size_t i = 0; i < t.late; ++i, weight += kVectors * 32) {
      const std::size_t k = std::size_t{t.late_step[i]} * 4;
      RAXE_UNROLL(4)
      for (std::size_t r = 0; r < kTileRows; ++r) {
        const I x = four(t.x + r * t.inputs + k);
        RAXE_UNROLL(2)
        for (std::size_t v = 0; v < kWide; ++v) {
          const I words = _mm256_maddubs_epi16(x, load_int(weight + v * 32));
          sums[r][v] = add_int(sums[r][v], _mm256_madd_epi16(words, ones));
        }
      }
    }
  }

  static RAXE_INLINE void attend_rows(std::size_t count, const HeadShape& shape,
                                      const HeadScratch& scratch, std::size_t row, float to_log2,
                                      float value_step, float* context,
                                      std::size_t stride) noexcept {
    const auto run = [&]<std::size_t kCount>() {
      detail::attend_rows<Avx2, kCount>(shape, scratch, row, to_log2, value_step, context, stride);
    };
    switch (count) {
      case 1: return run.template operator()<1>();
      case 2: return run.template operator()<2>();
      case 3: return run.template operator()<3>();
      default: return run.template operator()<4>();
    }
  }
};

}  // namespace

constinit const EncoderKernels kEncoderAvx2 = make_kernels<Avx2>("avx2", Packing::paired);

}  // namespace raxe_fast::detail
