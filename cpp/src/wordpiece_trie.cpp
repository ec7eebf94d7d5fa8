#include "wordpiece_trie.hpp"

#include <algorithm>
#include <stdexcept>

namespace raxe_fast::wordpiece {
namespace {

// A node whose children have yet to find their place: keys [first, last) share `depth` symbols.
struct Range {
  Trie::Node node;
  std::size_t first, last, depth;
};

}  // namespace

Trie::Trie(std::vector<Key> keys, std::size_t symbols) {
  std::sort(keys.begin(), keys.end());
  for (std::size_t i = 1; i < keys.size(); ++i) {
    if (keys[i].first == keys[i - 1].first) throw std::invalid_argument("a key appears twice");
  }
  std::vector<std::uint64_t> cells(1 + symbols, kFree);
  std::vector<bool> used(cells.size(), false);
  used[kRoot] = true;
  std::size_t lowest_free = 1;
  // Depth first: what a word's letters lead to lies close together.
  std::vector<Range> open{{kRoot, 0, keys.size(), 0}};
  std::vector<Symbol> labels;
  std::vector<std::size_t> starts;
  while (!open.empty()) {
    const Range range = open.back();
    open.pop_back();
    labels.clear();
    starts.clear();
    for (std::size_t k = range.first; k < range.last; ++k) {
      const std::u16string& key = keys[k].first;
      if (key.size() == range.depth) {  // sorted: only the first can end here
        cells[range.node] = (cells[range.node] & ~std::uint64_t{kNoValue}) | keys[k].second;
        continue;
      }
      if (labels.empty() || labels.back() != key[range.depth]) {
        labels.push_back(key[range.depth]);
        starts.push_back(k);
      }
    }
    if (labels.empty()) continue;
    starts.push_back(range.last);
    while (lowest_free < used.size() && used[lowest_free]) ++lowest_free;
    std::size_t base = lowest_free > labels.front() ? lowest_free - labels.front() : 0;
    for (;; ++base) {
      if (base + symbols > used.size()) {
        used.resize(base + symbols + used.size() / 2, false);
        cells.resize(used.size(), kFree);
      }
      if (std::none_of(labels.begin(), labels.end(), [&](Symbol s) { return used[base + s]; })) {
        break;
      }
    }
    if (base + symbols >= kIndexMask) throw std::length_error("the vocabulary's trie is too large");
    cells[range.node] |= std::uint64_t{base} << kBaseShift;
    for (std::size_t k = labels.size(); k-- > 0;) {
      const auto child = static_cast<Node>(base + labels[k]);
      used[child] = true;
      cells[child] = std::uint64_t{range.node} << kValueBits | kNoValue;
      open.push_back({child, starts[k], starts[k + 1], range.depth + 1});
    }
  }
  // A childless node has base 0, and whatever base: a step never leaves the array.
  std::size_t top = 0;
  for (const std::uint64_t cell : cells) {
    top = std::max(top, static_cast<std::size_t>(cell >> kBaseShift));
  }
  cells.resize(top + symbols, kFree);
  cells_ = settle(cells);
}

}  // namespace raxe_fast::wordpiece
