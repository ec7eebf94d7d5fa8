// The model's parts as prepare.py exports them: raw little-endian arrays, read whole.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "raxe_fast/calibration.hpp"
#include "raxe_fast/clusters.hpp"
#include "raxe_fast/forest.hpp"
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

// One real text of 64 tokens with the encoder's output for it.
struct EncodedText {
  BenchText text;
  std::vector<float> tokens;  // (length, hidden)
  std::size_t length = 0;
};

struct ModelData {
  std::size_t hidden = 0;
  double detail_threshold = 0.0;
  std::map<std::string, ForestArrays> forests;  // by head name
  std::map<std::string, std::string> sha256;    // of the Treelite file, by head name
  std::vector<float> embeddings;                // (n, hidden) of real texts
  std::vector<float> centroids;                 // (k, hidden)
  std::size_t n_attack = 0;
  std::shared_ptr<const Calibration> calibration;
  std::vector<TriggerSpec> triggers;
  std::vector<BenchText> texts;
  std::vector<EncodedText> encoded;

  // `compiled` forests fall back to nullptr where this build holds none for the model.
  [[nodiscard]] std::shared_ptr<const Forest> forest(const std::string& head, bool compiled) const;
  // nullptr if `compiled` and a head is not compiled in.
  [[nodiscard]] std::unique_ptr<Scorer> scorer(bool compiled) const;
};

// Throws std::runtime_error naming the file that is missing or malformed.
[[nodiscard]] ModelData load_model_data(const std::string& directory);

}  // namespace raxe_fast::bench
