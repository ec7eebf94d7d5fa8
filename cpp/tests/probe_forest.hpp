// A stand-in for a trained forest, for tests of what the scorer does around its forests.
#pragma once

#include <cstddef>
#include <string_view>
#include <vector>

#include "raxe_fast/forest.hpp"

namespace raxe_fast::test {

// A forest that says what it sees: output 1 is the first feature as a probability, further
// outputs repeat the other features; and it counts its calls and keeps the rows it was given.
class Probe final : public Forest {
 public:
  Probe(std::size_t outputs, std::size_t features) : outputs_(outputs), features_(features) {}
  std::size_t n_features() const noexcept override { return features_; }
  std::size_t n_outputs() const noexcept override { return outputs_; }
  std::size_t n_trees() const noexcept override { return 1; }
  std::string_view kind() const noexcept override { return "probe"; }
  void predict(const float* features, double* out) const noexcept override {
    ++calls;
    rows.emplace_back(features, features + features_);
    for (std::size_t i = 0; i < outputs_; ++i) {
      out[i] = static_cast<double>(features[i % features_]);
    }
    if (outputs_ == 2) {
      out[1] = static_cast<double>(features[0]) / 2.0 + 0.5;
      out[0] = 1.0 - out[1];
    }
  }
  mutable std::size_t calls = 0;
  mutable std::vector<std::vector<float>> rows;

 private:
  std::size_t outputs_, features_;
};

}  // namespace raxe_fast::test
