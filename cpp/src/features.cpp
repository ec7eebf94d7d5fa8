#include "raxe_fast/features.hpp"

#include <algorithm>
#include <stdexcept>
#include <utility>

#include "kept_memory.hpp"

namespace raxe_fast {
namespace {

void require(bool condition, const char* message) {
  if (!condition) throw std::invalid_argument(message);
}

}  // namespace

void FeatureScratch::trim() {
  detail::give_back(text);
  detail::give_back(hashes);
  detail::give_back(lexical.rows);
}

Features::Features(Parts parts) : parts_(std::move(parts)), size_(0) {
  require(parts_.linear != nullptr && parts_.passages != nullptr && parts_.lexical != nullptr &&
              parts_.labels != nullptr,
          "features: a part is missing");
  require(parts_.linear->inputs() == parts_.passages->hidden(),
          "features: the linear heads and the passage finder differ in width");
  require(parts_.lexical->outputs() == 1, "features: the n-gram model has not one output");
  require(parts_.trigger_weight.size() == parts_.trigger_family.size(),
          "features: not one weight a trigger");
  for (const std::uint32_t family : parts_.trigger_family) {
    require(family < parts_.families, "features: a trigger's family is out of range");
  }
  for (const double weight : parts_.trigger_weight) {
    require(weight >= 0.0 && weight < 1.0, "features: a trigger's weight is outside [0, 1)");
  }
  size_ = surface_at() + kSurface;
}

void Features::rules(const TriggerMatch* matches, std::size_t n, std::vector<bool>& seen,
                     float* out) const {
  seen.assign(triggers(), false);
  std::fill(out, out + parts_.families, 0.0F);
  for (std::size_t i = 0; i < n; ++i) {
    const std::uint32_t trigger = matches[i].trigger;
    require(trigger < triggers(), "features: a match names no trigger");
    if (seen[trigger]) continue;
    seen[trigger] = true;
    float& score = out[parts_.trigger_family[trigger]];
    score = 1.0F - (1.0F - score) * static_cast<float>(1.0 - parts_.trigger_weight[trigger]);
  }
}

void Features::fill(float evidence, TextView text, std::size_t begin, std::size_t end,
                    FeatureScratch& scratch, float* row) const {
  (*parts_.linear)(row, row + linear_at());
  row[passage_at()] = evidence;
  scratch.hashes.clear();
  ngram_hashes(text, begin, end, scratch.text, scratch.hashes);
  (*parts_.lexical)(scratch.hashes, scratch.lexical, row + lexical_at());
  surface_statistics(text, begin, end, row + surface_at());
}

void Features::fill_labels(FeatureScratch& scratch, float* row) const {
  (*parts_.labels)(scratch.hashes, scratch.lexical, row + size_);
}

}  // namespace raxe_fast
