// Checks trigger specs and turns them into automata.
#include <algorithm>
#include <atomic>
#include <map>
#include <stdexcept>
#include <string>
#include <tuple>
#include <utility>

#include "raxe_fast/normalize.hpp"
#include "triggers_impl.hpp"

namespace raxe_fast {
namespace {

using State = LiteralAutomaton::State;
using Strings = std::vector<std::u32string>;

[[noreturn]] void fail(std::size_t trigger, const char* what) {
  throw std::invalid_argument("trigger " + std::to_string(trigger) + ": " + what);
}

void check_normalised(std::size_t trigger, const std::u32string& pattern) {
  if (pattern.empty()) {
    fail(trigger, "empty pattern");
  }
  for (const char32_t c : pattern) {
    const Mapped mapped = map_code_point(c);
    if (mapped.count != 1 || (mapped.chars != nullptr && *mapped.chars != c)) {
      fail(trigger, "pattern is not in normalised form");
    }
  }
}

void check_word(std::size_t trigger, const std::u32string& word) {
  check_normalised(trigger, word);
  for (const char32_t c : word) {
    const CharClass kind = char_class(c);
    if (kind == CharClass::separator) {
      fail(trigger, "a word holds a separator");
    }
    if (kind == CharClass::unspaced && word.size() > 1) {
      fail(trigger, "a letter of an unspaced script is a word of its own");
    }
  }
}

Strings sorted_unique(Strings strings) {
  std::ranges::sort(strings);
  strings.erase(std::ranges::unique(strings).begin(), strings.end());
  return strings;
}

std::uint32_t index32(std::size_t value) { return static_cast<std::uint32_t>(value); }

struct TrieNode {
  std::map<char32_t, std::uint32_t> edges;
  std::vector<std::uint32_t> literals;  // triggers
  std::uint32_t parent = 0, depth = 0;
  char32_t last = 0;
  State fallback = 0;
};

// A plain trie; node 0 is the root and parents come before children.
struct Trie {
  std::vector<TrieNode> nodes{1};

  TrieNode& insert(const std::u32string& key) {
    std::uint32_t at = 0;
    for (const char32_t c : key) {
      const auto [edge, fresh] = nodes[at].edges.try_emplace(c, index32(nodes.size()));
      const std::uint32_t child = edge->second;
      if (fresh) {
        TrieNode& node = nodes.emplace_back();
        node.parent = at;
        node.depth = nodes[at].depth + 1;
        node.last = c;
      }
      at = child;
    }
    return nodes[at];
  }

  // All nodes, the root first, then by depth.
  [[nodiscard]] std::vector<std::uint32_t> breadth_first() const {
    std::vector<std::uint32_t> order{0};
    for (std::size_t i = 0; i < order.size(); ++i) {
      for (const auto& [c, child] : nodes[order[i]].edges) {
        order.push_back(child);
      }
    }
    return order;
  }

  // All nodes, each followed by its first child: the rest of a literal lies in a few cache lines.
  [[nodiscard]] std::vector<std::uint32_t> depth_first() const {
    std::vector<std::uint32_t> order, stack{0};
    while (!stack.empty()) {
      const std::uint32_t at = stack.back();
      stack.pop_back();
      order.push_back(at);
      for (auto edge = nodes[at].edges.rbegin(); edge != nodes[at].edges.rend(); ++edge) {
        stack.push_back(edge->second);
      }
    }
    return order;
  }
};

struct Element {
  std::uint32_t parent = 0, max_gap = 0;
  Strings words, prefixes;
  std::vector<std::uint32_t> fires;  // triggers
};

// Elements, equal beginnings shared, in the order of CompiledTriggers: `roots` first.
std::vector<Element> merge_phrases(const std::vector<TriggerSpec>& specs, std::size_t& roots) {
  constexpr std::uint32_t kNone = 0xFFFFFFFF;
  using Key = std::tuple<std::uint32_t, std::uint32_t, Strings, Strings>;
  std::map<Key, std::uint32_t> known;
  std::vector<Element> found;
  std::vector<std::vector<std::uint32_t>> children;
  std::vector<std::uint32_t> order;
  for (std::size_t t = 0; t < specs.size(); ++t) {
    for (const std::vector<PhraseElement>& phrase : specs[t].phrases) {
      std::uint32_t at = kNone;
      for (const PhraseElement& element : phrase) {
        // The gap before the first element has no meaning and counts as 0.
        const std::uint32_t gap = at == kNone ? 0 : element.max_gap;
        Key key{at, gap, sorted_unique(element.words), sorted_unique(element.prefixes)};
        const auto [entry, fresh] = known.try_emplace(std::move(key), index32(found.size()));
        if (fresh) {
          (at == kNone ? order : children[at]).push_back(entry->second);
          found.push_back({at, gap, std::get<2>(entry->first), std::get<3>(entry->first), {}});
          children.emplace_back();
        }
        at = entry->second;
      }
      if (found[at].fires.empty() || found[at].fires.back() != t) {
        found[at].fires.push_back(index32(t));
      }
    }
  }
  roots = order.size();
  std::vector<Element> sorted;
  for (std::uint32_t i = 0; i < order.size(); ++i) {
    sorted.push_back(std::move(found[order[i]]));
    for (const std::uint32_t child : children[order[i]]) {
      found[child].parent = i;
      order.push_back(child);
    }
  }
  return sorted;
}

// What a word matches: its own elements and those of every prefix of it. A prefix includes the
// shorter ones, so that the longest says it all.
WordTable make_words(const std::vector<Element>& elements) {
  using Lists = std::map<std::u32string, std::vector<std::uint32_t>>;
  Lists exact, prefixes;
  for (std::uint32_t e = 0; e < elements.size(); ++e) {
    for (const std::u32string& word : elements[e].words) {
      exact[word].push_back(e);
    }
    for (const std::u32string& prefix : elements[e].prefixes) {
      prefixes[prefix].push_back(e);
    }
  }
  std::vector<WordTable::Word> table;
  const auto add = [&](const std::u32string& text, bool prefix) {
    std::vector<std::uint32_t> entries;
    const auto take = [&](const Lists& from, const std::u32string& key) {
      if (const auto list = from.find(key); list != from.end()) {
        entries.insert(entries.end(), list->second.begin(), list->second.end());
      }
    };
    if (!prefix) {
      take(exact, text);
    }
    for (std::size_t n = 1; n <= text.size(); ++n) {
      take(prefixes, text.substr(0, n));
    }
    std::ranges::sort(entries);
    entries.erase(std::ranges::unique(entries).begin(), entries.end());
    table.push_back({text, prefix, std::move(entries)});
  };
  for (const auto& item : exact) {
    add(item.first, false);
  }
  for (const auto& item : prefixes) {
    add(item.first, true);
  }
  return WordTable(table);
}

}  // namespace

CompiledTriggers::CompiledTriggers(const std::vector<TriggerSpec>& specs) {
  static std::atomic<std::uint64_t> sets{0};
  id = ++sets;
  for (std::size_t t = 0; t < specs.size(); ++t) {
    const TriggerSpec& spec = specs[t];
    if (!(spec.weight >= 0.0 && spec.weight < 1.0)) {
      fail(t, "weight outside [0, 1)");
    }
    weights.push_back(spec.weight);
    for (const std::u32string& pattern : spec.literals) {
      check_normalised(t, pattern);
    }
    for (const std::vector<PhraseElement>& phrase : spec.phrases) {
      if (phrase.empty()) {
        fail(t, "phrase without elements");
      }
      for (const PhraseElement& element : phrase) {
        if (element.words.empty() && element.prefixes.empty()) {
          fail(t, "phrase element without words");
        }
        std::ranges::for_each(element.words, [t](const auto& word) { check_word(t, word); });
        std::ranges::for_each(element.prefixes, [t](const auto& word) { check_word(t, word); });
      }
    }
  }
  compile_literals(specs);
  compile_phrases(specs);
}

void CompiledTriggers::compile_literals(const std::vector<TriggerSpec>& specs) {
  Trie trie;
  Strings all;
  for (std::size_t t = 0; t < specs.size(); ++t) {
    for (const std::u32string& pattern : sorted_unique(specs[t].literals)) {
      trie.insert(pattern).literals.push_back(index32(t));
      all.push_back(pattern);
    }
  }
  std::size_t shortest = 0;
  if (!all.empty()) {
    const auto by_size = [](const auto& a, const auto& b) { return a.size() < b.size(); };
    const auto [least, most] = std::ranges::minmax_element(all, by_size);
    shortest = least->size();
    longest_literal = most->size();
  }

  std::vector<std::uint32_t> linked(trie.nodes.size());  // by trie node, as `fallback`
  for (const std::uint32_t at : trie.breadth_first()) {
    TrieNode& node = trie.nodes[at];
    // The longest proper suffix that is a prefix of some literal: nearer the root, so complete.
    std::uint32_t suffix = node.parent;
    while (suffix != 0 && node.fallback == 0) {
      suffix = trie.nodes[suffix].fallback;
      const auto edge = trie.nodes[suffix].edges.find(node.last);
      node.fallback = edge == trie.nodes[suffix].edges.end() ? 0 : edge->second;
    }
    linked[at] = trie.nodes[node.fallback].literals.empty() ? linked[node.fallback] : node.fallback;
  }

  const std::vector<std::uint32_t> order = trie.depth_first();
  std::vector<State> state_of(order.size());
  for (std::size_t i = 0; i < order.size(); ++i) {
    state_of[order[i]] = index32(i);
  }
  std::vector<LiteralAutomaton::Node> nodes(order.size());
  for (std::size_t i = 0; i < order.size(); ++i) {
    const TrieNode& node = trie.nodes[order[i]];
    for (const auto& [c, child] : node.edges) {
      nodes[i].edges.emplace(c, state_of[child]);
    }
    nodes[i].fallback = state_of[node.fallback];
    nodes[i].depth = node.depth;
    output_link.push_back(state_of[linked[order[i]]]);
    nodes[i].reports = !node.literals.empty() || output_link.back() != 0;
    const std::uint32_t begin = index32(literal.size());
    for (const std::uint32_t trigger : node.literals) {
      literal.push_back({trigger, node.depth});
    }
    own_output.push_back({begin, index32(literal.size())});
  }
  literals = LiteralAutomaton(nodes, all, shortest);
}

void CompiledTriggers::compile_phrases(const std::vector<TriggerSpec>& specs) {
  const std::vector<Element> all = merge_phrases(specs, roots);
  words = make_words(all);
  elements = all.size();
  child_begin.reserve(elements + 1);
  fires_begin.reserve(elements + 1);
  steps.reserve(elements);
  std::vector<std::uint32_t> all_fires;
  std::size_t child = roots;
  for (std::uint32_t e = 0; e < elements; ++e) {
    child_begin.push_back(index32(child));
    while (child < elements && all[child].parent == e) {
      ++child;
    }
    steps.push_back({all[e].parent, all[e].max_gap});
    fires_begin.push_back(index32(all_fires.size()));
    all_fires.insert(all_fires.end(), all[e].fires.begin(), all[e].fires.end());
  }
  child_begin.push_back(index32(child));
  fires_begin.push_back(index32(all_fires.size()));
  fires = settle(all_fires);
}

}  // namespace raxe_fast
