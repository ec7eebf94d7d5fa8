// A trie over small integers as a double array: the child of node n along symbol s is at
// base(n) + s, if the node there names n as its parent. One memory access per step.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "raxe_fast/model_memory.hpp"

namespace raxe_fast::wordpiece {

using Symbol = char16_t;
inline constexpr Symbol kNoSymbol = 0;  // a character that no token has

class Trie {
 public:
  using Node = std::uint32_t;
  // Symbols, none of them 0, and value. A short string lies in place.
  using Key = std::pair<std::u16string, std::uint16_t>;
  static constexpr std::uint16_t kNoValue = 0xFFFF;
  static constexpr Node kRoot = 0;

  Trie() = default;
  // Keys are not empty, values below kNoValue, symbols below `symbols`. Throws
  // std::invalid_argument for a key that appears twice, std::length_error where the trie needs 2^24
  // cells or more.
  Trie(std::vector<Key> keys, std::size_t symbols);

  // The child of `node`, or kRoot where there is none (nothing leads to the root). `symbol` must be
  // below the number that the constructor was given.
  [[nodiscard]] Node step(Node node, Symbol symbol) const noexcept {
    const Node next = static_cast<Node>(cells_[node] >> kBaseShift) + symbol;
    return (cells_[next] >> kValueBits & kIndexMask) == node ? next : kRoot;
  }
  [[nodiscard]] std::uint16_t value(Node node) const noexcept {
    return static_cast<std::uint16_t>(cells_[node]);
  }
  [[nodiscard]] std::size_t bytes() const noexcept { return cells_.size() * sizeof(cells_[0]); }

 private:
  // From bit 0: value in 16 bits, parent in 24, base in 24.
  static constexpr unsigned kValueBits = 16, kBaseShift = 40;
  static constexpr std::uint64_t kIndexMask = 0xFFFFFF;
  static constexpr std::uint64_t kFree = kIndexMask << kValueBits | kNoValue;

  ModelVector<std::uint64_t> cells_;
};

}  // namespace raxe_fast::wordpiece
