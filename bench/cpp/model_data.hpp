// The model's parts as prepare.py exports them: raw little-endian arrays, read whole.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "raxe_fast/calibration.hpp"
#include "raxe_fast/clusters.hpp"
#include "raxe_fast/features.hpp"
#include "raxe_fast/forest.hpp"
#include "raxe_fast/model_memory.hpp"
#include "raxe_fast/score.hpp"
#include "raxe_fast/text.hpp"
#include "raxe_fast/triggers.hpp"

namespace raxe_fast::bench {

inline constexpr const char* kHeads[] = {"binary", "family", "subfamily"};

struct BenchText {
  std::string name;                 // e.g. "harmless_1024", "harmless_cyrillic_1024"
  std::vector<std::uint8_t> bytes;  // length * width
  std::uint8_t width = 1;

  [[nodiscard]] TextView view() const {
    return {bytes.data(), bytes.size() / width, width};
  }
};

// One real text with the encoder's output for it.
struct EncodedText {
  BenchText text;
  ModelVector<float> tokens;  // (length, hidden); line-aligned, as ONNX Runtime's outputs are
  std::size_t length = 0;
  WindowSpan span{0, 0};  // what the tokens cover of the text
};

struct ModelData {
  std::size_t hidden = 0;
  double detail_threshold = 0.0;
  std::map<std::string, ForestArrays> forests;  // by head name
  std::map<std::string, std::string> sha256;    // of the Treelite file, by head name
  std::vector<float> embeddings;                // (n, hidden) of real texts
  std::vector<float> rows;  // (n, row_size()): each with the features of one encoded text
  std::vector<float> centroids;                 // (k, hidden)
  std::size_t n_attack = 0;
  std::shared_ptr<const Calibration> calibration;
  std::vector<TriggerSpec> triggers;
  Features::Parts feature_parts;  // empty: the forests see the embedding alone
  std::shared_ptr<const Features> features;  // of these parts, or nullptr
  std::vector<BenchText> texts;
  std::vector<EncodedText> encoded;

  // Length of what the family and subfamily forests see; the binary one sees the beginning of it.
  [[nodiscard]] std::size_t row_size() const {
    return features == nullptr ? hidden : features->full_size();
  }

  // `compiled` forests fall back to nullptr where this build holds none for the model.
  [[nodiscard]] std::shared_ptr<const Forest> forest(const std::string& head, bool compiled) const;
  // nullptr if `compiled` and a head is not compiled in.
  [[nodiscard]] std::unique_ptr<Scorer> scorer(bool compiled) const;
};

// Throws std::runtime_error naming the file that is missing or malformed.
[[nodiscard]] ModelData load_model_data(const std::string& directory);

}  // namespace raxe_fast::bench
