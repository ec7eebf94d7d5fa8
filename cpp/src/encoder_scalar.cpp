#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>

#include "encoder_kernels.hpp"

namespace raxe_fast::detail {
namespace {

// Like the vector instructions: ties to even, the smallest integer for what does not fit.
std::int32_t to_int(float x) noexcept {
  if (!(x >= -2147483648.0F && x < 2147483648.0F)) return INT32_MIN;
  return static_cast<std::int32_t>(std::nearbyint(x));
}

std::int16_t to_int16(float x) noexcept {
  return static_cast<std::int16_t>(std::clamp<std::int32_t>(to_int(x), INT16_MIN, INT16_MAX));
}

// std::fma keeps its precision without the instruction, at a price.
float fma(float a, float b, float c) noexcept { return std::fma(a, b, c); }

void quantize_row(const float* x, std::size_t width, float low, float high,
                  const QuantizedRows& to, std::size_t row) noexcept {
  float step = (high - low) * (1.0F / 255.0F);
  step = step > kTiny ? step : kTiny;
  const float inverse = 1.0F / step;
  const float from = -low * inverse;
  for (std::size_t i = 0; i < width; ++i) {
    const std::int32_t value = to_int(fma(x[i], inverse, from));
    to.values[row * width + i] = static_cast<std::uint8_t>(std::clamp(value, 0, 255));
  }
  to.scale[row] = step;
  to.low[row] = low;
}

struct Range {
  float low = 3.0e38F, high = -3.0e38F;
  void add(float x) noexcept {
    low = low < x ? low : x;
    high = high > x ? high : x;
  }
};

float total(std::array<float, kNormSums> sums) noexcept {
  for (std::size_t half = kNormSums / 2; half > 0; half /= 2) {
    for (std::size_t i = 0; i < half; ++i) sums[i] += sums[i + half];
  }
  return sums[0];
}

void norm_row(const float* x, const float* residual, const Norm& norm, std::size_t width,
              float* out, const QuantizedRows& to, std::size_t row) noexcept {
  const float share = 1.0F / static_cast<float>(width);
  std::array<float, kNormSums> sums{};
  for (std::size_t i = 0; i < width; ++i) {
    out[i] = residual == nullptr ? x[i] : x[i] + residual[i];
    sums[i % kNormSums] += out[i];
  }
  const float mean = total(sums) * share;
  sums.fill(0.0F);
  for (std::size_t i = 0; i < width; ++i) {
    const float a = out[i] - mean;
    sums[i % kNormSums] = fma(a, a, sums[i % kNormSums]);
  }
  const float inverse = 1.0F / std::sqrt(total(sums) * share + norm.epsilon);
  Range range;
  for (std::size_t i = 0; i < width; ++i) {
    out[i] = fma((out[i] - mean) * inverse, norm.gamma[i], norm.beta[i]);
    range.add(out[i]);
  }
  if (to.values != nullptr) quantize_row(out, width, range.low, range.high, to, row);
}

void embed(const EmbeddingTables& tables, const Norm& norm, const std::int64_t* ids,
           const std::uint32_t* pair_rows, std::size_t first, std::size_t count, std::size_t width,
           float* hidden, QuantizedRows quantized) noexcept {
  for (std::size_t r = 0; r < count; ++r) {
    const auto id = static_cast<std::size_t>(ids[r]);
    float* const row = hidden + r * width;
    for (std::size_t i = 0; i < width; ++i) {
      row[i] = fma(static_cast<float>(tables.words[id * width + i]), tables.word_scale[id],
                   tables.position[(first + r) * width + i]);
      if (tables.pairs != nullptr) {
        row[i] = fma(static_cast<float>(tables.pairs[pair_rows[r] * width + i]),
                     tables.pair_scale[pair_rows[r]], row[i]);
      }
    }
    norm_row(row, nullptr, norm, width, row, quantized, r);
  }
}

void norm_rows(const float* x, const float* residual, const Norm& norm, std::size_t rows,
               std::size_t width, float* out, QuantizedRows quantized) noexcept {
  for (std::size_t r = 0; r < rows; ++r) {
    norm_row(x + r * width, residual == nullptr ? nullptr : residual + r * width, norm, width,
             out + r * width, quantized, r);
  }
}

void quantize(const float* x, std::size_t rows, std::size_t width,
              QuantizedRows quantized) noexcept {
  for (std::size_t r = 0; r < rows; ++r) {
    Range range;
    for (std::size_t i = 0; i < width; ++i) range.add(x[r * width + i]);
    quantize_row(x + r * width, width, range.low, range.high, quantized, r);
  }
}

float gelu_of(float x) noexcept {
  float t = x > -kGeluRange ? x : -kGeluRange;
  t = t < kGeluRange ? t : kGeluRange;
  const float u = t * t;
  float p = kGelu[7];
  for (int k = 6; k >= 0; --k) p = fma(p, u, kGelu[k]);
  return x * fma(p, t, 0.5F);
}

void gelu(float* x, std::size_t rows, std::size_t width, QuantizedRows quantized) noexcept {
  for (std::size_t i = 0; i < rows * width; ++i) x[i] = gelu_of(x[i]);
  quantize(x, rows, width, quantized);
}

void linear(const PackedLinear& layer, QuantizedRows x, std::size_t rows, float* out) noexcept {
  for (std::size_t n = 0; n < layer.outputs; ++n) {
    const std::int8_t* const weight = layer.weight + n * layer.inputs;
    for (std::size_t r = 0; r < rows; ++r) {
      const std::uint8_t* const row = x.values + r * layer.inputs;
      std::int32_t sum = 0;
      for (std::size_t k = 0; k < layer.inputs; ++k) {
        sum += static_cast<std::int32_t>(row[k]) * static_cast<std::int32_t>(weight[k]);
      }
      const float shift = fma(x.low[r], layer.sum[n], layer.bias[n]);
      out[r * layer.outputs + n] =
          fma(static_cast<float>(sum) * layer.scale[n], x.scale[r], shift);
    }
  }
}

void linear_gelu(const PackedLinear& layer, QuantizedRows x, std::size_t rows, float* floats,
                 QuantizedRows quantized) noexcept {
  linear(layer, x, rows, floats);
  gelu(floats, rows, layer.outputs, quantized);
}

float exp2_of(float x) noexcept {
  x = x > kExp2Lowest ? x : kExp2Lowest;
  const float whole = std::nearbyint(x);
  const float r = x - whole;
  float p = fma(kExp2[3], r, kExp2[2]);
  p = fma(p, r, kExp2[1]);
  p = fma(p, r, kExp2[0]);
  return std::ldexp(p, static_cast<int>(whole));
}

// As vectors add: sums fit, unless something was not finite.
std::int32_t add_product(std::int32_t sum, std::int16_t a, std::int16_t b) noexcept {
  return static_cast<std::int32_t>(static_cast<std::uint32_t>(sum) +
                                   static_cast<std::uint32_t>(std::int32_t{a} * b));
}

// Query, key and value as (tokens, padded) integers; the pairs of the vector variants are theirs.
void attend(const float* rows, const HeadShape& shape, float factor, const HeadScratch& scratch,
            float* context, std::size_t stride) noexcept {
  const std::size_t tokens = shape.tokens;
  const std::size_t padded = shape.padded;
  std::int16_t* const parts[3] = {scratch.query, scratch.key, scratch.value};
  float peaks[3];
  for (std::size_t part = 0; part < 3; ++part) {
    float peak = 0.0F;
    for (std::size_t i = 0; i < tokens; ++i) {
      for (std::size_t d = 0; d < padded; ++d) {
        const float a = std::fabs(rows[(3 * i + part) * padded + d]);
        peak = peak > a ? peak : a;
      }
    }
    peaks[part] = peak + kTiny;
    const float by = kHeadLevels / peaks[part];
    for (std::size_t i = 0; i < tokens; ++i) {
      for (std::size_t d = 0; d < padded; ++d) {
        parts[part][i * padded + d] = to_int16(rows[(3 * i + part) * padded + d] * by);
      }
    }
  }
  const float to_log2 = peaks[0] / kHeadLevels * (peaks[1] / kHeadLevels) * factor * kLog2E;
  const float value_step = peaks[2] / kHeadLevels;
  for (std::size_t i = 0; i < tokens; ++i) {
    float highest = -1.0e30F;
    for (std::size_t k = 0; k < tokens; ++k) {
      std::int32_t sum = 0;
      for (std::size_t d = 0; d < padded; ++d) {
        sum = add_product(sum, scratch.query[i * padded + d], scratch.key[k * padded + d]);
      }
      scratch.score[k] = static_cast<float>(sum);
      highest = highest > scratch.score[k] ? highest : scratch.score[k];
    }
    std::int32_t all = 0;
    for (std::size_t k = 0; k < tokens; ++k) {
      const float below = scratch.score[k] - highest;
      scratch.weight[k] = to_int16(exp2_of(fma(below, to_log2, kWeightLevelsLog2)));
      all += scratch.weight[k];
    }
    const float share = value_step / static_cast<float>(all);
    for (std::size_t d = 0; d < shape.head; ++d) {
      std::int32_t sum = 0;
      for (std::size_t k = 0; k < tokens; ++k) {
        sum = add_product(sum, scratch.weight[k], scratch.value[k * padded + d]);
      }
      context[i * stride + d] = static_cast<float>(sum) * share;
    }
  }
}

}  // namespace

constinit const EncoderKernels kEncoderScalar = {"scalar", Packing::rows, 1,    &embed, &norm_rows,
                                                 &quantize, &gelu, &linear, &linear_gelu, &attend};

}  // namespace raxe_fast::detail
