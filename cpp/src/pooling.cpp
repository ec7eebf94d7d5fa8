#include "raxe_fast/pooling.hpp"

#include <array>

#include "pooling_kernels.hpp"
#include "raxe_fast/cpu.hpp"

namespace raxe_fast {
namespace {

// Indexed by vector_level().
#if defined(__x86_64__)
constexpr std::array<detail::PoolKernel, 3> kKernels{
    detail::mean_pool_l2_scalar, detail::mean_pool_l2_avx2, detail::mean_pool_l2_avx512};
#else
constexpr std::array<detail::PoolKernel, 3> kKernels{
    detail::mean_pool_l2_scalar, detail::mean_pool_l2_scalar, detail::mean_pool_l2_scalar};
#endif

}  // namespace

void mean_pool_l2(const float* tokens, std::size_t count, std::size_t hidden,
                  const std::uint8_t* mask, float* out) noexcept {
  kKernels[vector_level()](tokens, count, hidden, mask, out);
}

}  // namespace raxe_fast
