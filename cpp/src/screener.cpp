#include "raxe_fast/screener.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "raxe_fast/features.hpp"
#include "raxe_fast/pooling.hpp"

namespace raxe_fast {
namespace {

void require(bool good, const char* what) {
  if (!good) throw std::invalid_argument(std::string("screener: ") + what);
}

struct Scratch {
  std::vector<float> tokens, embedding, evidence;
  FeatureScratch features;
};

Scratch& thread_scratch() {
  thread_local Scratch scratch;
  return scratch;
}

}  // namespace

Screener::Screener(Parts parts) : parts_(std::move(parts)) {
  require(parts_.encoder != nullptr && parts_.linear != nullptr && parts_.passages != nullptr,
          "a part is missing");
  const std::size_t hidden = parts_.encoder->hidden();
  require(parts_.linear->inputs() == hidden && parts_.passages->hidden() == hidden,
          "the heads differ in width from the encoder");
  require(parts_.linear->outputs() == 1, "the linear head has not one output");
  require(parts_.lexical == nullptr || parts_.lexical->outputs() == 1,
          "the n-gram model has not one output");
  require(std::isfinite(parts_.bias), "the bias is not finite");
  for (const double weight : parts_.weights) {
    require(std::isfinite(weight) && weight >= 0.0, "a weight is negative or not finite");
  }
  require(parts_.lexical != nullptr || parts_.weights[2] == 0.0,
          "n-grams have a weight, but there is no n-gram model");
}

std::array<float, kScreenEvidence> Screener::evidence(const std::int64_t* ids, std::size_t length,
                                                      TextView text, std::size_t begin,
                                                      std::size_t end) const {
  Scratch& scratch = thread_scratch();
  const std::size_t hidden = parts_.encoder->hidden();
  // Never shrunk: a vector that grows again would write zeros.
  const std::size_t needed = std::min(length, parts_.encoder->positions()) * hidden;
  if (scratch.tokens.size() < needed) scratch.tokens.resize(needed);
  if (scratch.embedding.size() < hidden) scratch.embedding.resize(hidden);
  parts_.encoder->encode(ids, 1, length, scratch.tokens.data());

  std::array<float, kScreenEvidence> out{};
  mean_pool_l2(scratch.tokens.data(), length, hidden, nullptr, scratch.embedding.data());
  (*parts_.linear)(scratch.embedding.data(), out.data());
  out[1] =
      (*parts_.passages)(scratch.tokens.data(), length, nullptr, scratch.evidence).evidence;
  if (parts_.lexical != nullptr) {
    FeatureScratch& features = scratch.features;
    features.hashes.clear();
    ngram_hashes(text, begin, end, features.text, features.hashes);
    (*parts_.lexical)(features.hashes, features.lexical, out.data() + 2);
    features.trim();
  }
  return out;
}

double Screener::operator()(const std::int64_t* ids, std::size_t length, TextView text,
                            std::size_t begin, std::size_t end) const {
  const auto found = evidence(ids, length, text, begin, end);
  double logit = parts_.bias;
  for (std::size_t i = 0; i < kScreenEvidence; ++i) {
    logit += parts_.weights[i] * static_cast<double>(found[i]);
  }
  // An infinite logit, too: "certainly harmless" must come from numbers, not from an overflow.
  return std::isfinite(logit) ? logit : std::numeric_limits<double>::quiet_NaN();
}

}  // namespace raxe_fast
