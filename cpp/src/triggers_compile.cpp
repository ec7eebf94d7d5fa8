// Checks trigger specs and turns them into automata.
#include <algorithm>
#include <atomic>
#include <functional>
#include <iterator>
#include <map>
#include <stdexcept>
#include <string>
#include <tuple>
#include <utility>

#include "raxe_fast/normalize.hpp"
#include "triggers_impl.hpp"

namespace raxe_fast {
namespace {

using State = Automaton::State;
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
  std::vector<std::uint32_t> exact, prefix;  // elements, or literals in `exact`
  std::uint32_t parent = 0;
  char32_t last = 0;
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
        nodes.emplace_back();
        nodes.back().parent = at;
        nodes.back().last = c;
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
};

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
  for (std::size_t t = 0; t < specs.size(); ++t) {
    for (const std::u32string& pattern : sorted_unique(specs[t].literals)) {
      trie.insert(pattern).exact.push_back(index32(t));
      longest_literal = std::max(longest_literal, pattern.size());
    }
  }
  const std::vector<std::uint32_t> order = trie.breadth_first();
  std::vector<State> state_of(order.size());
  std::vector<std::uint32_t> depth(order.size());
  for (std::size_t i = 0; i < order.size(); ++i) {
    state_of[order[i]] = index32(i);
  }
  std::vector<Automaton::Node> nodes(order.size());
  own_output.resize(order.size());
  output_link.resize(order.size());
  has_output.resize(order.size());
  for (std::size_t i = 0; i < order.size(); ++i) {
    const TrieNode& node = trie.nodes[order[i]];
    for (const auto& [c, child] : node.edges) {
      nodes[i].edges.emplace(c, state_of[child]);
    }
    own_output[i].begin = index32(literal.size());
    if (i > 0) {
      const State parent = state_of[node.parent];
      depth[i] = depth[parent] + 1;
      // The longest proper suffix that is a prefix of some literal: nearer the root, so complete.
      State suffix = parent;
      State target = 0;
      while (suffix != 0 && target == 0) {
        suffix = nodes[suffix].fallback;
        const auto edge = nodes[suffix].edges.find(node.last);
        target = edge == nodes[suffix].edges.end() ? 0 : edge->second;
      }
      nodes[i].fallback = target;
      output_link[i] = own_output[target].begin != own_output[target].end ? target
                                                                         : output_link[target];
      for (const std::uint32_t trigger : node.exact) {
        literal.push_back({trigger, depth[i]});
      }
    }
    own_output[i].end = index32(literal.size());
    has_output[i] = !node.exact.empty() || output_link[i] != 0;
  }
  literals = Automaton(nodes, 0);
}

void CompiledTriggers::compile_phrases(const std::vector<TriggerSpec>& specs) {
  // Share equal beginnings. The gap before the first element has no meaning and counts as 0.
  using Key = std::tuple<std::uint32_t, std::uint32_t, Strings, Strings>;
  std::map<Key, std::uint32_t> known;
  std::vector<std::vector<std::uint32_t>> ends;
  Trie trie;
  for (std::size_t t = 0; t < specs.size(); ++t) {
    for (const std::vector<PhraseElement>& phrase : specs[t].phrases) {
      std::uint32_t parent = kNoElement;
      for (const PhraseElement& element : phrase) {
        const std::uint32_t gap = parent == kNoElement ? 0 : element.max_gap;
        Key key{parent, gap, sorted_unique(element.words), sorted_unique(element.prefixes)};
        const auto [entry, fresh] = known.try_emplace(std::move(key), index32(elements.size()));
        if (fresh) {
          for (const std::u32string& word : std::get<2>(entry->first)) {
            trie.insert(word).exact.push_back(entry->second);
          }
          for (const std::u32string& prefix : std::get<3>(entry->first)) {
            trie.insert(prefix).prefix.push_back(entry->second);
          }
          elements.push_back({parent, gap, 0, 0});
          ends.emplace_back();
        }
        parent = entry->second;
      }
      if (ends[parent].empty() || ends[parent].back() != t) {
        ends[parent].push_back(index32(t));
      }
    }
  }
  for (std::size_t e = 0; e < elements.size(); ++e) {
    elements[e].fires_begin = index32(fires.size());
    fires.insert(fires.end(), ends[e].begin(), ends[e].end());
    elements[e].fires_end = index32(fires.size());
  }

  // States: sinks first (0: no pattern goes on this way; one more for each prefix, which once read
  // holds whatever follows), then the trie. A node falls back to the sink of its longest prefix.
  const std::vector<std::uint32_t> order = trie.breadth_first();
  std::vector<State> state_of(order.size()), sink_of(order.size());
  std::vector<std::vector<std::uint32_t>> inherited{{}};  // by sink: elements of its prefixes
  for (const std::uint32_t at : order) {
    const TrieNode& node = trie.nodes[at];
    sink_of[at] = at == 0 ? 0 : sink_of[node.parent];
    if (!node.prefix.empty()) {
      std::vector<std::uint32_t> all = inherited[sink_of[at]];
      all.insert(all.end(), node.prefix.begin(), node.prefix.end());
      sink_of[at] = index32(inherited.size());
      inherited.push_back(std::move(all));
    }
  }
  const std::size_t sinks = inherited.size();
  const auto add_answer = [this](std::vector<std::uint32_t> list) {
    std::ranges::sort(list, std::greater{});
    list.erase(std::ranges::unique(list).begin(), list.end());
    const std::uint32_t begin = index32(matched.size());
    matched.insert(matched.end(), list.begin(), list.end());
    answers.push_back({begin, index32(matched.size())});
    return index32(answers.size() - 1);
  };
  std::vector<Automaton::Node> nodes(sinks);
  for (std::size_t sink = 0; sink < sinks; ++sink) {
    nodes[sink].fallback = index32(sink);
    answer_of.push_back(add_answer(inherited[sink]));
  }
  for (std::size_t i = 0; i < order.size(); ++i) {
    state_of[order[i]] = index32(sinks + i);
  }
  for (const std::uint32_t at : order) {
    const TrieNode& node = trie.nodes[at];
    Automaton::Node& out = nodes.emplace_back();
    out.fallback = sink_of[at];
    for (const auto& [c, child] : node.edges) {
      out.edges.emplace(c, state_of[child]);
    }
    std::vector<std::uint32_t> all = inherited[sink_of[at]];
    all.insert(all.end(), node.exact.begin(), node.exact.end());
    answer_of.push_back(node.exact.empty() ? answer_of[sink_of[at]] : add_answer(std::move(all)));
  }
  words = Automaton(nodes, index32(sinks));
}

}  // namespace raxe_fast
