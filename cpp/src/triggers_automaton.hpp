// A finite automaton over normalised code points, shared by the literal matcher (Aho-Corasick) and
// the word matcher (a trie). One idea serves both: a state has edges and a fallback; a character
// without an edge is tried again at the fallback, until a state falls back to itself.
//
// The states nearest the root, where nearly all of a text is spent, also hold a dense row over the
// ASCII characters the patterns use, with fallbacks already followed: one load per character.
#pragma once

#include <array>
#include <bitset>
#include <cstddef>
#include <cstdint>
#include <map>
#include <vector>

namespace raxe_fast {

class Automaton {
 public:
  using State = std::uint32_t;

  struct Node {
    std::map<char32_t, State> edges;
    State fallback = 0;  // <= the node's own index
  };

  Automaton() = default;
  Automaton(const std::vector<Node>& nodes, State root);

  [[nodiscard]] State root() const noexcept { return root_; }

  // One character of the *original* text below 128; the map of normalize.hpp is built in.
  [[nodiscard]] State step_ascii(State state, char32_t c) const noexcept {
    if (state < dense_count_) [[likely]] {
      return dense_[state * stride_ + symbol_[c]];
    }
    return step_sparse(state, folded_[c]);
  }

  // Any normalised character.
  [[nodiscard]] State step(State state, char32_t c) const noexcept;

 private:
  [[nodiscard]] State step_sparse(State state, char32_t c) const noexcept;

  State root_ = 0, dense_count_ = 0;
  std::size_t stride_ = 1;
  std::array<std::uint8_t, 128> symbol_{};  // 0: in no pattern
  std::array<std::uint8_t, 128> folded_{};
  std::vector<State> dense_;
  std::vector<std::uint32_t> edge_begin_;  // one per state, and the end
  std::vector<char32_t> edge_char_;
  std::vector<State> edge_target_, fallback_;
  std::bitset<4096> known_;  // hashes of the non-ASCII characters in patterns
};

}  // namespace raxe_fast
