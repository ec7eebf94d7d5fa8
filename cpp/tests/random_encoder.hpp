// An encoder of random weights, for the tests and for the benchmark of the encoder alone.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <random>
#include <vector>

#include "raxe_fast/encoder.hpp"

namespace raxe_fast::test {

struct EncoderShape {
  std::size_t hidden, heads, attention, inner, layers, pairs = 0;
  std::size_t vocabulary = 50, positions = 80;
};

// Owns the weights. Not movable: the views point into it.
class RandomEncoder {
 public:
  explicit RandomEncoder(const EncoderShape& shape, unsigned seed = 9) : random_(seed) {
    w.vocabulary = shape.vocabulary;
    w.positions = shape.positions;
    w.hidden = shape.hidden;
    w.heads = shape.heads;
    w.words = weights(shape.vocabulary * shape.hidden, 127);
    w.word_scale = floats(shape.vocabulary, 0.01F, 0.001F);
    w.position = floats(shape.positions * shape.hidden, 0.0F, 0.2F);
    if (shape.pairs > 0) {
      w.pair_rows = shape.pairs;
      w.pairs = weights(shape.pairs * shape.hidden, 127);
      w.pair_scale = floats(shape.pairs, 0.01F, 0.001F);
    }
    w.norm = norm(shape.hidden);
    for (std::size_t i = 0; i < shape.layers; ++i) {
      EncoderLayerWeights layer;
      layer.query = linear(shape.hidden, shape.attention);
      layer.key = linear(shape.hidden, shape.attention);
      layer.value = linear(shape.hidden, shape.attention);
      layer.attention_out = linear(shape.attention, shape.hidden);
      layer.intermediate = linear(shape.hidden, shape.inner);
      layer.output = linear(shape.inner, shape.hidden);
      layer.attention_norm = norm(shape.hidden);
      layer.output_norm = norm(shape.hidden);
      w.layers.push_back(layer);
    }
  }
  RandomEncoder(const RandomEncoder&) = delete;
  RandomEncoder& operator=(const RandomEncoder&) = delete;

  EncoderWeights w;

  // More of the same, which lives as long as the encoder.
  float* floats(std::size_t n, float mean, float deviation) {
    std::normal_distribution<float> normal(mean, deviation);
    auto& values = floats_.emplace_back(std::make_unique<std::vector<float>>(n));
    for (float& value : *values) value = normal(random_);
    return values->data();
  }
  std::int8_t* weights(std::size_t n, int limit) {
    auto& values = bytes_.emplace_back(std::make_unique<std::vector<std::int8_t>>(n));
    for (auto& value : *values) {
      const auto any = static_cast<int>(random_() % (2U * static_cast<unsigned>(limit) + 1U));
      value = static_cast<std::int8_t>(any - limit);
    }
    return values->data();
  }

 private:
  LinearWeights linear(std::size_t inputs, std::size_t outputs) {
    const float scale = 1.0F / (37.0F * std::sqrt(static_cast<float>(inputs)));
    return {weights(inputs * outputs, 64), floats(outputs, scale, 0.1F * scale),
            floats(outputs, 0.0F, 0.1F), inputs, outputs};
  }
  NormWeights norm(std::size_t width) {
    return {floats(width, 1.0F, 0.1F), floats(width, 0.0F, 0.1F)};
  }

  std::mt19937 random_;
  std::vector<std::unique_ptr<std::vector<float>>> floats_;
  std::vector<std::unique_ptr<std::vector<std::int8_t>>> bytes_;
};

}  // namespace raxe_fast::test
