// The ISA variants of the dot products behind Clusters::nearest, one per file. The same rule as in
// pooling_kernels.hpp: no standard header with inline functions in those files.
#pragma once

#include <cstddef>

namespace raxe_fast::detail {

// out[i] = dot(rows[i], x) for i < count. rows: (count, hidden) float32, row-major.
using DotKernel = void (*)(const float* rows, std::size_t count, std::size_t hidden,
                           const float* x, float* out) noexcept;

void dot_rows_scalar(const float* rows, std::size_t count, std::size_t hidden, const float* x,
                     float* out) noexcept;
void dot_rows_avx2(const float* rows, std::size_t count, std::size_t hidden, const float* x,
                   float* out) noexcept;
void dot_rows_avx512(const float* rows, std::size_t count, std::size_t hidden, const float* x,
                     float* out) noexcept;

}  // namespace raxe_fast::detail
