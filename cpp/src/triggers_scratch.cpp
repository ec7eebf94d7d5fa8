#include "triggers_scratch.hpp"

#include <algorithm>
#include <bit>
#include <limits>

namespace raxe_fast {

void TriggerScratch::State::prepare(const CompiledTriggers& set) {
  // Stamps of earlier passes must never look current, not even after 2^32 passes.
  if (owner != set.id || pass > std::numeric_limits<std::uint32_t>::max() - 4) {
    owner = 0;  // should an allocation below fail, the next call starts over
    enabled.assign(set.elements / 64 + 1, 0);
    progress.assign(set.elements, {});
    kept.assign(set.weights.size(), {});
    counted.assign(set.weights.size(), 0);
    recent.assign(std::bit_ceil(std::max(set.longest_literal, LiteralAutomaton::kGram)), {});
    pending.assign(kBatch, {});
    probes.assign(kBatchProbes + set.words.longest_prefix() + 1, {});
    spelling.assign(kBatchSpelling + set.words.longest() * kMaxSpelling, 0);
    touched.reserve(set.weights.size());
    pass = 0;
    owner = set.id;
  }
  touched.clear();
  first_pass = pass + 1;
}

void TriggerScratch::State::begin_pass(const CompiledTriggers& set) {
  ++pass;
  std::ranges::fill(enabled, 0);
  const auto ones = enabled.begin() + static_cast<std::ptrdiff_t>(set.roots / 64);
  std::fill(enabled.begin(), ones, ~std::uint64_t{0});
  *ones = (std::uint64_t{1} << (set.roots % 64)) - 1;
}

void TriggerScratch::State::keep(std::uint32_t trigger, std::uint32_t begin, std::uint32_t end) {
  Kept& entry = kept[trigger];
  if (entry.text != first_pass) {
    entry.text = first_pass;
    entry.count = 0;
    touched.push_back(trigger);
  }
  const std::pair span{end, begin};
  if (entry.count == kMaxMatchesPerTrigger && span >= entry.spans[entry.count - 1]) {
    return;
  }
  const auto first = entry.spans.begin();
  const auto last = first + entry.count;
  const auto at = std::lower_bound(first, last, span);
  if (at != last && *at == span) {
    return;
  }
  entry.count += entry.count < kMaxMatchesPerTrigger ? 1 : 0;
  std::move_backward(at, first + entry.count - 1, first + entry.count);
  *at = span;
}

// Three rounds, so that in each the lines of all words are on their way at once: buckets (asked for
// by the reader), records, and what the entries lead to.
void TriggerScratch::State::look_up(const CompiledTriggers& set, std::size_t words) {
  const std::size_t n_probes = words == 0 ? 0 : pending[words - 1].probes_end;
  for (std::size_t p = 0; p < n_probes; ++p) {
    probes[p].located = set.words.locate(probes[p].key, probes[p].bucket);
  }
  std::size_t first = 0;
  for (std::size_t w = 0; w < words; ++w) {
    const Pending& word = pending[w];
    // From the longest: all of the word, or else its longest prefix.
    for (std::size_t p = word.probes_end; p-- > first;) {
      const Probe& probe = probes[p];
      std::span<const std::uint32_t> entries;
      if (probe.located && set.words.find(probe.key, probe.bucket, spelling.data() + word.spelling,
                                          probe.bytes, probe.prefix, entries)) {
        end_word(set, entries, word);
        break;
      }
    }
    first = word.probes_end;
  }
}

void TriggerScratch::State::end_word(const CompiledTriggers& set,
                                     std::span<const std::uint32_t> entries,
                                     const Pending& word) {
  for (const std::uint32_t entry : entries) {
    const std::uint32_t index = entry & ~kFires;
    if ((enabled[index / 64] >> (index % 64) & 1) == 0) {
      continue;
    }
    std::uint32_t from = word.begin;
    if (index >= set.roots) {
      const CompiledStep& step = set.steps[index];
      const Progress& before = progress[step.parent];
      if (word.number - before.word - 1 > step.max_gap) {
        continue;
      }
      from = before.begin;
    }
    const std::uint32_t first = set.child_begin[index];
    const std::uint32_t last = set.child_begin[index + 1];
    if (first != last) {
      progress[index] = {word.number, from};
      for (std::uint32_t child = first; child != last; ++child) {
        enabled[child / 64] |= std::uint64_t{1} << (child % 64);
      }
    }
    if ((entry & kFires) != 0) {
      for (std::uint32_t f = set.fires_begin[index]; f < set.fires_begin[index + 1]; ++f) {
        keep(set.fires[f], from, word.end);
      }
    }
  }
}

void TriggerScratch::State::end_literal(const CompiledTriggers& set, LiteralAutomaton::State state,
                                        std::size_t fed, std::uint32_t end) {
  for (; state != 0; state = set.output_link[state]) {
    const Range own = set.own_output[state];
    for (std::uint32_t i = own.begin; i < own.end; ++i) {
      const CompiledLiteral& literal = set.literal[i];
      keep(literal.trigger, recent[(fed - literal.length) & (recent.size() - 1)].origin, end);
    }
  }
}

}  // namespace raxe_fast
