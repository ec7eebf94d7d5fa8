// Microbenchmarks of the core. Pooling needs nothing; the rest needs a model exported by
// prepare.py, whose directory is given as --model_data=DIR or in RAXE_FAST_BENCH_DATA.
//
// Names: pool/<isa>/<tokens>, forest/<head>/<kind>/<cache>, clusters/<isa>/<cache>,
// normalize/<text>, triggers/<text>, score/<text>/<kind>/<cache>; for models with features
// linear/<cache>, passage/<text>/<cache>, ngrams/<text>, lexical/<text>/<cache> and
// labels/<text>/<cache> (tables, hashes given), surface/<text>, features/<text>/<cache> (all of a
// row but the labels).
#include <benchmark/benchmark.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <iostream>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "model_data.hpp"
#include "raxe_fast/cpu.hpp"
#include "raxe_fast/normalize.hpp"
#include "raxe_fast/pooling.hpp"
#include "sampling.hpp"

namespace {

using namespace raxe_fast;
using namespace raxe_fast::bench;

constexpr Cache kCaches[] = {Cache::hot, Cache::cold_l2, Cache::cold_dram};

std::vector<Isa> available_isas() {
  std::vector<Isa> out;
  for (const Isa isa : {Isa::scalar, Isa::avx2, Isa::avx512}) {
    if (static_cast<int>(isa) <= static_cast<int>(detected_isa())) out.push_back(isa);
  }
  return out;
}

void add_pooling(std::size_t hidden) {
  for (const Isa isa : available_isas()) {
    for (const std::size_t count : {16U, 32U, 64U, 128U, 256U, 512U}) {
      const std::string name =
          "pool/" + std::string(isa_name(isa)) + "/" + std::to_string(count);
      auto* benchmark = benchmark::RegisterBenchmark(
          name.c_str(), [isa, count, hidden](benchmark::State& state) {
            std::mt19937 random(1);
            std::normal_distribution<float> normal;
            std::vector<float> tokens(count * hidden), out(hidden);
            for (float& value : tokens) value = normal(random);
            force_isa(isa);
            sample(state, Cache::hot, [&](std::size_t) {
              mean_pool_l2(tokens.data(), count, hidden, nullptr, out.data());
              benchmark::DoNotOptimize(out.data());
            });
            force_isa(detected_isa());
          });
      configure(benchmark, Cache::hot);
    }
  }
}

void add_forests(const ModelData& data) {
  for (const char* head : kHeads) {
    for (const bool compiled : {true, false}) {
      const std::shared_ptr<const Forest> forest = data.forest(head, compiled);
      if (!forest) {
        std::cerr << "forest/" << head << "/compiled: not in this build, left out\n";
        continue;
      }
      for (const Cache cache : kCaches) {
        const std::string name = std::string("forest/") + head + "/" +
                                 std::string(forest->kind()) + "/" + cache_name(cache);
        auto* benchmark = benchmark::RegisterBenchmark(
            name.c_str(), [&data, forest, cache](benchmark::State& state) {
              std::vector<double> out(forest->n_outputs());
              const std::size_t size = data.row_size(), rows = data.rows.size() / size;
              sample(state, cache, [&](std::size_t i) {
                // A new row each time: the branch predictor must not learn one path by heart.
                forest->predict(data.rows.data() + (i % rows) * size, out.data());
                benchmark::DoNotOptimize(out.data());
              });
            });
        configure(benchmark, cache);
      }
    }
  }
}

void add_clusters(const ModelData& data) {
  const auto clusters = std::make_shared<Clusters>(data.centroids, data.hidden, data.n_attack);
  for (const Isa isa : available_isas()) {
    for (const Cache cache : kCaches) {
      const std::string name =
          "clusters/" + std::string(isa_name(isa)) + "/" + cache_name(cache);
      auto* benchmark = benchmark::RegisterBenchmark(
          name.c_str(), [&data, clusters, isa, cache](benchmark::State& state) {
            const std::size_t rows = data.embeddings.size() / data.hidden;
            force_isa(isa);
            sample(state, cache, [&](std::size_t i) {
              Neighbour nearest[kNearest];
              float novelty = clusters->nearest(
                  data.embeddings.data() + (i % rows) * data.hidden, nearest);
              benchmark::DoNotOptimize(novelty);
            });
            force_isa(detected_isa());
          });
      configure(benchmark, cache);
    }
  }
}

void add_texts(const ModelData& data) {
  const auto triggers = std::make_shared<TriggerSet>(data.triggers);
  for (const BenchText& text : data.texts) {
    auto* normalising = benchmark::RegisterBenchmark(
        ("normalize/" + text.name).c_str(), [&text](benchmark::State& state) {
          sample(state, Cache::hot, [&](std::size_t) {
            NormalizedText out = normalize(text.view(), Ignorables::drop);
            benchmark::DoNotOptimize(out.chars.data());
          });
        });
    configure(normalising, Cache::hot);
    for (const Cache cache : kCaches) {
      auto* matching = benchmark::RegisterBenchmark(
          ("triggers/" + text.name + "/" + cache_name(cache)).c_str(),
          [&text, triggers, cache](benchmark::State& state) {
            TriggerScratch scratch;
            std::vector<TriggerMatch> matches;
            sample(state, cache, [&](std::size_t) {
              matches.clear();
              triggers->match(text.view(), scratch, matches);
              double score = triggers->rule_score(matches.data(), matches.size(), scratch);
              benchmark::DoNotOptimize(score);
            });
            state.counters["matches"] = static_cast<double>(matches.size());
          });
      configure(matching, cache);
    }
  }
}

// The hashes of the n-grams of what the encoded text's tokens cover.
std::vector<std::uint32_t> hashes_of(const EncodedText& encoded) {
  std::u32string scratch;
  std::vector<std::uint32_t> out;
  ngram_hashes(encoded.text.view(), encoded.span.begin, encoded.span.end, scratch, out);
  return out;
}

template <typename Body>
void add(const std::string& name, Cache cache, Body body) {
  configure(benchmark::RegisterBenchmark(name.c_str(), body), cache);
}

void add_features(const ModelData& data) {
  if (data.features == nullptr) {
    std::cerr << "features: the model has none, left out\n";
    return;
  }
  const Features::Parts& parts = data.feature_parts;
  for (const Cache cache : kCaches) {
    add(std::string("linear/") + cache_name(cache), cache, [&, cache](benchmark::State& state) {
      const std::size_t rows = data.embeddings.size() / data.hidden;
      std::vector<float> out(parts.linear->outputs());
      sample(state, cache, [&](std::size_t i) {
        (*parts.linear)(data.embeddings.data() + (i % rows) * data.hidden, out.data());
        benchmark::DoNotOptimize(out.data());
      });
    });
  }
  for (const EncodedText& encoded : data.encoded) {
    const std::string& text = encoded.text.name;
    add("ngrams/" + text, Cache::hot, [&](benchmark::State& state) {
      std::u32string scratch;
      std::vector<std::uint32_t> out;
      sample(state, Cache::hot, [&](std::size_t) {
        out.clear();
        ngram_hashes(encoded.text.view(), encoded.span.begin, encoded.span.end, scratch, out);
        benchmark::DoNotOptimize(out.data());
      });
      state.counters["ngrams"] = static_cast<double>(out.size());
    });
    add("surface/" + text, Cache::hot, [&](benchmark::State& state) {
      float out[kSurface];
      sample(state, Cache::hot, [&](std::size_t) {
        surface_statistics(encoded.text.view(), encoded.span.begin, encoded.span.end, out);
        benchmark::DoNotOptimize(out);
      });
    });
    for (const Cache cache : kCaches) {
      const std::string end = text + "/" + cache_name(cache);
      add("passage/" + end, cache, [&, cache](benchmark::State& state) {
        std::vector<float> scratch;
        sample(state, cache, [&](std::size_t) {
          Passage out = (*parts.passages)(encoded.tokens.data(), encoded.length, nullptr, scratch);
          benchmark::DoNotOptimize(out);
        });
      });
      for (const auto& [kind, model] : {std::pair{"lexical/", parts.lexical},
                                        std::pair{"labels/", parts.labels}}) {
        add(kind + end, cache, [&, cache, model = model](benchmark::State& state) {
          const std::vector<std::uint32_t> hashes = hashes_of(encoded);
          LexicalScratch scratch;
          std::vector<float> out(model->outputs());
          sample(state, cache, [&](std::size_t) {
            (*model)(hashes, scratch, out.data());
            benchmark::DoNotOptimize(out.data());
          });
        });
      }
      add("features/" + end, cache, [&, cache](benchmark::State& state) {
        FeatureScratch scratch;
        std::vector<float> row(data.rows.begin(),
                               data.rows.begin() + static_cast<std::ptrdiff_t>(data.row_size()));
        sample(state, cache, [&](std::size_t) {
          data.features->fill(0.0F, encoded.text.view(), encoded.span.begin, encoded.span.end,
                              scratch, row.data());
          benchmark::DoNotOptimize(row.data());
        });
      });
    }
  }
}

void add_score(const ModelData& data) {
  for (const bool compiled : {true, false}) {
    const std::shared_ptr<const Scorer> scorer = data.scorer(compiled);
    if (!scorer) {
      std::cerr << "score/*/compiled: heads not in this build, left out\n";
      continue;
    }
    const std::string kind = compiled ? "compiled" : "packed";
    for (const EncodedText& encoded : data.encoded) {
      for (const Cache cache : kCaches) {
        const std::string name = "score/" + encoded.text.name + "/" + kind + "/" +
                                 cache_name(cache);
        auto* benchmark = benchmark::RegisterBenchmark(
            name.c_str(), [&encoded, scorer, cache](benchmark::State& state) {
              const WindowBlock block{encoded.tokens.data(), 1, encoded.length, nullptr};
              const TextView text = encoded.text.view();
              const std::uint32_t window_text = 0;
              std::vector<TextScore> out;
              sample(state, cache, [&](std::size_t) {
                scorer->score(&block, 1, &window_text, &encoded.span, &text, 1, false, out);
                benchmark::DoNotOptimize(out.data());
              });
              state.counters["P(attack)"] = out.front().score;
            });
        configure(benchmark, cache);
      }
    }
  }
}

// Takes --model_data=DIR out of the arguments; Google Benchmark rejects what it does not know.
std::string take_model_data(int& argc, char** argv) {
  constexpr const char* kOption = "--model_data=";
  const char* environment = std::getenv("RAXE_FAST_BENCH_DATA");
  std::string out = environment == nullptr ? "" : environment;
  int kept = 1;
  for (int i = 1; i < argc; ++i) {
    if (std::strncmp(argv[i], kOption, std::strlen(kOption)) == 0) {
      out = argv[i] + std::strlen(kOption);
    } else {
      argv[kept++] = argv[i];
    }
  }
  argc = kept;
  return out;
}

}  // namespace

int main(int argc, char** argv) {
  const std::string directory = take_model_data(argc, argv);
  ModelData data;
  try {
    if (!directory.empty()) data = load_model_data(directory);
    add_pooling(directory.empty() ? 384 : data.hidden);
    if (directory.empty()) {
      std::cerr << "no --model_data=DIR (bench/cpp/prepare.py writes one): pooling only\n";
    } else {
      add_forests(data);
      add_clusters(data);
      add_texts(data);
      add_features(data);
      add_score(data);
    }
  } catch (const std::exception& error) {
    std::cerr << "error: " << error.what() << "\n";
    return 2;
  }
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 2;
  benchmark::AddCustomContext("raxe_fast.isa", std::string(isa_name(detected_isa())));
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
  return 0;
}
