#include "triggers_automaton.hpp"

#include <algorithm>

#include "raxe_fast/normalize.hpp"

namespace raxe_fast {
namespace {

// Dense rows fit in a second-level cache; the states beyond are deep inside rare words.
constexpr std::size_t kDenseStates = (std::size_t{1} << 19) / sizeof(Automaton::State);

constexpr std::size_t hash(char32_t c) noexcept { return (c ^ (c >> 12)) & 4095; }

}  // namespace

Automaton::Automaton(const std::vector<Node>& nodes, State root) : root_(root) {
  for (const Node& node : nodes) {
    edge_begin_.push_back(static_cast<std::uint32_t>(edge_char_.size()));
    fallback_.push_back(node.fallback);
    for (const auto& [c, target] : node.edges) {
      edge_char_.push_back(c);
      edge_target_.push_back(target);
      if (c >= 128) {
        known_.set(hash(c));
      } else if (symbol_[c] == 0) {
        symbol_[c] = static_cast<std::uint8_t>(stride_++);
      }
    }
  }
  edge_begin_.push_back(static_cast<std::uint32_t>(edge_char_.size()));

  // Dense rows are made while symbol_ holds normalised characters alone: a fallback comes before
  // its state, so its row is complete when copied.
  const std::size_t rows =
      std::min(nodes.size(), std::max(kDenseStates / stride_, std::size_t{root_} + 1));
  dense_.resize(rows * stride_);
  for (std::size_t state = 0; state < rows; ++state) {
    const std::size_t fallback = nodes[state].fallback;
    for (std::size_t s = 0; s < stride_; ++s) {
      dense_[state * stride_ + s] =
          fallback == state ? static_cast<State>(state) : dense_[fallback * stride_ + s];
    }
    for (const auto& [c, target] : nodes[state].edges) {
      if (c < 128) {
        dense_[state * stride_ + symbol_[c]] = target;
      }
    }
  }
  dense_count_ = static_cast<State>(rows);

  // From here on both tables are indexed by characters of the original text.
  const std::array<std::uint8_t, 128> normalised = symbol_;
  for (char32_t c = 0; c < 128; ++c) {
    folded_[c] = static_cast<std::uint8_t>(*map_code_point(c).chars);
    symbol_[c] = normalised[folded_[c]];
  }
}

Automaton::State Automaton::step(State state, char32_t c) const noexcept {
  if (c < 128) {
    return step_ascii(state, c);
  }
  if (!known_.test(hash(c))) {
    while (fallback_[state] != state) {
      state = fallback_[state];
    }
    return state;
  }
  return step_sparse(state, c);
}

Automaton::State Automaton::step_sparse(State state, char32_t c) const noexcept {
  while (true) {
    if (c < 128 && state < dense_count_) {
      return dense_[state * stride_ + symbol_[c]];
    }
    const auto first = edge_char_.begin() + edge_begin_[state];
    const auto last = edge_char_.begin() + edge_begin_[state + 1];
    const auto found = std::lower_bound(first, last, c);
    if (found != last && *found == c) {
      return edge_target_[static_cast<std::size_t>(found - edge_char_.begin())];
    }
    if (fallback_[state] == state) {
      return state;
    }
    state = fallback_[state];
  }
}

}  // namespace raxe_fast
