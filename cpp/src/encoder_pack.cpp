#include "encoder_pack.hpp"

#include <algorithm>
#include <cstring>

namespace raxe_fast::detail {
namespace {

constexpr int kPairLimit = 128;  // 255 * 128 < 2^15

// The largest magnitude that products of these weights with bytes can add up to, over 255.
int worst_sum(const std::int8_t* a, const std::int8_t* b) {
  int above = 0;
  int below = 0;
  for (const int w : {a[0], a[1], b[0], b[1]}) (w > 0 ? above : below) += w;
  return std::max(above, -below);
}

}  // namespace

PackedStore::PackedStore(const Columns& columns, const EncoderKernels& kernels)
    : scale_(settle(columns.scale)), bias_(settle(columns.bias)) {
  std::vector<float> sums(columns.size());
  for (std::size_t n = 0; n < columns.size(); ++n) {
    std::int32_t sum = 0;
    for (std::size_t k = 0; k < columns.inputs; ++k) sum += columns.weight[n * columns.inputs + k];
    sums[n] = static_cast<float>(sum) * columns.scale[n];
  }
  sum_ = settle(sums);
  if (kernels.packing == Packing::rows) {
    weight_ = settle(columns.weight);
  } else {
    pack_panels(columns, kernels.panel, kernels.packing);
  }
  layer_ = {columns.inputs, columns.size(), weight_.data(), scale_.data(), sum_.data(),
            bias_.data(),   nullptr,        nullptr,        nullptr};
  if (!late_begin_.empty()) {
    layer_.late_begin = late_begin_.data();
    layer_.late_step = late_step_.data();
    layer_.late_weight = late_weight_.data();
  }
}

std::size_t PackedStore::bytes() const noexcept {
  return weight_.size() + late_weight_.size() +
         4 * (scale_.size() + sum_.size() + bias_.size() + late_begin_.size() + late_step_.size());
}

void PackedStore::pack_panels(const Columns& columns, std::size_t width, Packing packing) {
  const std::size_t steps = columns.inputs / 4;
  const std::size_t filled =
      packing == Packing::tiles ? (columns.inputs + kTileInputs - 1) / kTileInputs * kTileInputs
                                : columns.inputs;
  std::vector<std::int8_t> packed(columns.size() * filled);
  for (std::size_t first = 0; first < columns.size(); first += width) {
    const std::size_t here = std::min(width, columns.size() - first);
    std::int8_t* to = packed.data() + first * filled;
    const std::int8_t* from = columns.weight.data() + first * columns.inputs;
    for (std::size_t step = 0; step < steps; ++step, from += 4) {
      for (std::size_t n = 0; n < here; ++n, to += 4) std::memcpy(to, from + n * columns.inputs, 4);
    }
  }
  if (packing == Packing::paired) take_out_late(columns, width, packed.data());
  weight_ = settle(packed);
}

void PackedStore::take_out_late(const Columns& columns, std::size_t width, std::int8_t* packed) {
  const std::size_t steps = columns.inputs / 4;
  std::vector<std::int8_t> late_weight;
  std::vector<std::uint32_t> late_begin{0};
  std::vector<std::uint32_t> late_step;
  for (std::size_t first = 0; first < columns.size(); first += width) {
    const std::size_t here = std::min(width, columns.size() - first);
    std::int8_t* const panel = packed + first * columns.inputs;
    // Steps go in pairs: the first of a pair stays in the panel as it stands.
    for (std::size_t step = 1; step < steps; step += 2) {
      bool moved = false;
      for (std::size_t n = 0; n < here; ++n) {
        const std::int8_t* const from =
            columns.weight.data() + (first + n) * columns.inputs + 4 * step;
        std::int8_t* const to = panel + (step * here + n) * 4;
        for (std::size_t k = 0; k < 4; k += 2) {
          if (worst_sum(from - 4 + k, from + k) <= kPairLimit) continue;
          if (!moved) late_weight.resize(late_weight.size() + width * 4);
          moved = true;
          std::int8_t* const late = late_weight.data() + late_weight.size() - width * 4;
          std::memcpy(late + n * 4 + k, from + k, 2);
          std::memset(to + k, 0, 2);
        }
      }
      if (moved) late_step.push_back(static_cast<std::uint32_t>(step));
    }
    late_begin.push_back(static_cast<std::uint32_t>(late_step.size()));
  }
  late_weight_ = settle(late_weight);
  late_begin_ = settle(late_begin);
  late_step_ = settle(late_step);
}

}  // namespace raxe_fast::detail
