#include "triggers_literals.hpp"

#include <algorithm>
#include <bit>

namespace raxe_fast {

LiteralAutomaton::LiteralAutomaton(const std::vector<Node>& nodes,
                                   const std::vector<std::u32string>& literals,
                                   std::size_t shortest) {
  const std::size_t short_gram = std::min(shortest, kGram);
  // Eight bits of room for the mark that tells short grams from long ones.
  short_shift_ = static_cast<unsigned>(64 - 8 * std::max<std::size_t>(short_gram, 1));
  filter_.resize(std::size_t{1} << kWordBits);
  states_.reserve(nodes.size());
  edges_.reserve(nodes.size());  // a tree: one less
  for (const Node& node : nodes) {
    states_.push_back({static_cast<std::uint32_t>(edges_.size()), node.fallback,
                       static_cast<std::uint32_t>(node.edges.size()), node.depth >= short_gram,
                       node.reports});
    for (const auto& [c, target] : node.edges) {
      edges_.push_back({c, target});
    }
  }
  for (const auto& [c, target] : nodes.front().edges) {
    if (c < 128) {
      from_root_[c] = target;
    }
  }
  gram_mask_ = std::bit_ceil(2 * literals.size() + 1) - 1;
  grams_.assign(gram_mask_ + 1, {});
  for (const std::u32string& literal : literals) {
    const bool is_long = literal.size() >= kGram;
    std::uint64_t recent = 0;
    State state = 0;
    for (std::size_t i = 0; i < (is_long ? kGram : short_gram); ++i) {
      recent = remember(recent, literal[i]);
      state = nodes[state].edges.at(literal[i]);
    }
    const std::uint64_t gram = is_long ? recent << kLongShift : recent << short_shift_ | 1;
    const Place at = place(gram);
    filter_[at.word] |= at.bits;
    if (is_long && (gram & kNotAscii) == 0) {
      std::size_t free = slot(gram);
      while (grams_[free].state != 0 && grams_[free].gram != gram) {
        free = (free + 1) & gram_mask_;
      }
      grams_[free] = {gram, state};
    }
  }
}

LiteralAutomaton::State LiteralAutomaton::step(State state, char32_t c) const noexcept {
  while (true) {
    if (state == 0 && c < 128) {
      return from_root_[c];
    }
    const Record& record = states_[state];
    const Edge* const first = edges_.data() + record.edge_begin;
    const Edge* const last = first + record.edges;
    const Edge* const found = std::lower_bound(
        first, last, c, [](const Edge& edge, char32_t value) { return edge.c < value; });
    if (found != last && found->c == c) {
      return found->target;
    }
    if (state == 0) {
      return 0;
    }
    state = record.fallback;
  }
}

void LiteralAutomaton::prefetch() const noexcept {
  for (std::size_t i = 0; i < filter_.size(); i += 8) {
    __builtin_prefetch(filter_.data() + i);
  }
}

}  // namespace raxe_fast
