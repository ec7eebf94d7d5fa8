// The ISA variants of mean_pool_l2, one per file; arguments as in pooling.hpp.
//
// The variants' files include no standard header with inline functions: compiled with wider
// instructions, such a function could become the copy that the linker keeps for every caller.
// All variants add up each column in token order and take the norm in double, so that means whose
// squares leave the range of float32 still come out right.
#pragma once

#include <cstddef>
#include <cstdint>

namespace raxe_fast::detail {

using PoolKernel = void (*)(const float* tokens, std::size_t count, std::size_t hidden,
                            const std::uint8_t* mask, float* out) noexcept;

void mean_pool_l2_scalar(const float* tokens, std::size_t count, std::size_t hidden,
                         const std::uint8_t* mask, float* out) noexcept;
void mean_pool_l2_avx2(const float* tokens, std::size_t count, std::size_t hidden,
                       const std::uint8_t* mask, float* out) noexcept;
void mean_pool_l2_avx512(const float* tokens, std::size_t count, std::size_t hidden,
                         const std::uint8_t* mask, float* out) noexcept;

}  // namespace raxe_fast::detail
