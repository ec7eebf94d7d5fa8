#include "triggers_scratch.hpp"

#include <algorithm>
#include <bit>
#include <limits>

namespace raxe_fast {
namespace {

constexpr std::size_t kLineBytes = 64;

// Sets the bits [begin, end); not empty.
void set_run(std::uint64_t* bits, std::size_t begin, std::size_t end) noexcept {
  std::size_t word = begin / 64;
  std::uint64_t from = ~std::uint64_t{0} << (begin % 64);
  for (; word < (end - 1) / 64; ++word) {
    bits[word] |= from;
    from = ~std::uint64_t{0};
  }
  bits[word] |= from & ~std::uint64_t{0} >> (63 - (end - 1) % 64);
}

}  // namespace

void TriggerScratch::State::prepare(const CompiledTriggers& set) {
  // Stamps of earlier passes must never look current, not even after 2^32 passes.
  if (owner != set.id || pass > std::numeric_limits<std::uint32_t>::max() - 4) {
    owner = 0;  // should an allocation below fail, the next call starts over
    awaited.assign(set.elements / 64 + 1, 0);
    progress.assign(set.elements, {});
    reached.assign(set.elements + 1, {});
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

void TriggerScratch::State::prefetch(const CompiledTriggers& set) noexcept {
  if (owner != set.id) {
    return;
  }
  const auto ask = [](const auto& items, std::size_t count) {
    const char* const first = reinterpret_cast<const char*>(items.data());
    const std::size_t bytes = std::min(items.size(), count) * sizeof(items[0]);
    for (std::size_t i = 0; i < bytes; i += kLineBytes) {
      __builtin_prefetch(first + i, 1);
    }
  };
  ask(awaited, 4096);
  ask(pending, kBatch);
  ask(probes, kBatchProbes);
  ask(recent, 64);
  ask(spelling, kBatchSpelling / 4);
  ask(reached, 64);
  ask(progress, std::min<std::size_t>(set.roots, 1024));
}

void TriggerScratch::State::begin_pass(const CompiledTriggers& set) {
  ++pass;
  std::ranges::fill(awaited, 0);
  if (set.roots != 0) {
    set_run(awaited.data(), 0, set.roots);
  }
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
    probes[p].bucket = set.words.locate(probes[p].key);
  }
  std::size_t first = 0;
  for (std::size_t w = 0; w < words; ++w) {
    const Pending& word = pending[w];
    // From the longest: all of the word, or else its longest prefix.
    for (std::size_t p = word.probes_end; p-- > first;) {
      const Probe& probe = probes[p];
      WordTable::Entries entries;
      if (set.words.find(probe.key, probe.bucket, spelling.data() + word.spelling,
                         probe.spelling / 2, (probe.spelling & 1) != 0, entries)) {
        end_word(set, entries, word);
        break;
      }
    }
    first = word.probes_end;
  }
}

void TriggerScratch::State::end_word(const CompiledTriggers& set, WordTable::Entries entries,
                                     const Pending& word) {
  // First all elements that the word may bring forward. No branch: of hundreds of entries a few
  // count, and which cannot be guessed.
  const std::uint64_t* const bits = awaited.data();
  Step* const steps = reached.data();
  std::size_t count = 0;
  std::uint32_t upper = 0;
  const std::uint16_t* lower = nullptr;
  for (std::size_t n = 0; entries.next(upper, lower, n);) {
    for (std::size_t i = 0; i < n; ++i) {
      const std::uint32_t e = upper + lower[i];
      steps[count] = {e, word.begin};
      count += bits[e / 64] >> (e % 64) & 1;
    }
  }
  for (std::size_t i = count; i > 0 && steps[i - 1].element >= set.roots; --i) {
    __builtin_prefetch(&set.steps[steps[i - 1].element]);
    __builtin_prefetch(&set.child_begin[steps[i - 1].element]);
    __builtin_prefetch(&set.fires_begin[steps[i - 1].element]);
  }
  // Then from the last: an element is worked out before the one before it changes.
  while (count-- > 0) {
    Step& step = steps[count];
    const std::uint32_t e = step.element;
    if (e >= set.roots) {
      const Progress& before = progress[set.steps[e].parent];
      if (word.number - before.word - 1 > set.steps[e].max_gap) {
        continue;
      }
      step.begin = before.begin;
    }
    const std::uint32_t first = set.child_begin[e];
    const std::uint32_t last = set.child_begin[e + 1];
    if (first != last) {
      progress[e] = {word.number, step.begin};
      set_run(awaited.data(), first, last);
    }
    for (std::uint32_t f = set.fires_begin[e]; f < set.fires_begin[e + 1]; ++f) {
      keep(set.fires[f], step.begin, word.end);
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
