// Nearest cluster centroids by cosine; brute force, which at some hundred centroids beats an index.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "raxe_fast/model_memory.hpp"

namespace raxe_fast {

inline constexpr std::size_t kNearest = 3;

struct Neighbour {
  std::int32_t cluster = -1;  // -1: fewer clusters than kNearest
  float cosine = 0.0F;
};

class Clusters {
 public:
  // centroids: (count, hidden) float32, row-major, copied; each row has unit length (checked to
  // 1e-3). The first `n_attack` rows are attack clusters, the rest harmless ones.
  // Throws std::invalid_argument on a size mismatch, a non-finite value or a row off unit length.
  Clusters(std::vector<float> centroids, std::size_t hidden, std::size_t n_attack);

  [[nodiscard]] std::size_t count() const noexcept { return count_; }
  [[nodiscard]] std::size_t n_attack() const noexcept { return n_attack_; }

  // embedding: `hidden` float32 of unit length. nearest: kNearest entries, the attack clusters of
  // highest cosine, descending. Returns novelty: 1 - max cosine over *all* clusters, clamped to
  // [0, 2]; 1 when there is no cluster.
  float nearest(const float* embedding, Neighbour* nearest) const noexcept;

 private:
  ModelVector<float> centroids_;
  std::size_t hidden_, count_, n_attack_;
};

}  // namespace raxe_fast
