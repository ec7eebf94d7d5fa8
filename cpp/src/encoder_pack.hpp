// Weights of linear layers in the order that a table of kernels reads them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "encoder_kernels.hpp"
#include "raxe_fast/model_memory.hpp"

namespace raxe_fast::detail {

// The columns of a layer, one after another: weights (inputs) each, with their scale and bias.
struct Columns {
  std::size_t inputs = 0;
  std::vector<std::int8_t> weight;  // (columns, inputs)
  std::vector<float> scale, bias;

  [[nodiscard]] std::size_t size() const noexcept { return scale.size(); }
};

// A packed layer and its memory.
class PackedStore {
 public:
  // columns.size() is a multiple of 16, columns.inputs of 32; weights within +-64.
  PackedStore(const Columns& columns, const EncoderKernels& kernels);
  PackedStore(PackedStore&&) noexcept = default;  // the memory, and so layer(), stays in place
  PackedStore& operator=(PackedStore&&) noexcept = default;

  [[nodiscard]] const PackedLinear& layer() const noexcept { return layer_; }
  [[nodiscard]] std::size_t bytes() const noexcept;
  // Steps of four inputs that Packing::paired moved to the end, over all panels.
  [[nodiscard]] std::size_t late() const noexcept { return late_step_.size(); }

 private:
  void pack_panels(const Columns& columns, std::size_t width, Packing packing);
  // Packing::paired: moves weights out of the packed panels into late_*.
  void take_out_late(const Columns& columns, std::size_t width, std::int8_t* packed);

  ModelVector<std::int8_t> weight_, late_weight_;
  ModelVector<float> scale_, sum_, bias_;
  ModelVector<std::uint32_t> late_begin_, late_step_;
  PackedLinear layer_{};
};

}  // namespace raxe_fast::detail
