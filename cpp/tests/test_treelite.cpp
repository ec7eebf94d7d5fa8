#include "raxe_fast/treelite.hpp"

#include <doctest/doctest.h>

#include <cstdint>
#include <cstring>
#include <iterator>
#include <limits>
#include <random>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

using raxe_fast::ForestArrays;
using raxe_fast::make_packed_forest;
using raxe_fast::read_treelite;

namespace {

template <typename T>
void put(std::string& to, T value) {
  char bytes[sizeof(T)];
  std::memcpy(bytes, &value, sizeof(T));
  to.append(bytes, sizeof(T));
}

template <typename T>
void put_array(std::string& to, const std::vector<T>& values) {
  put<std::uint64_t>(to, values.size());
  for (const T value : values) put(to, value);
}

// The format once more, from the writer's side: x0 <= 0.5 ? (1, 0) : (x1 <= -1 ? (0.25, 0.75) :
// (0, 1)), and a second tree of one leaf, (0.5, 0.5).
std::string two_trees() {
  std::string out;
  put<std::int32_t>(out, 4);
  put<std::int32_t>(out, 3);
  put<std::int32_t>(out, 0);
  put<std::uint8_t>(out, 3);  // float64 thresholds
  put<std::uint8_t>(out, 3);  // and leaves
  put<std::uint64_t>(out, 2);  // trees
  put<std::int32_t>(out, 2);   // features
  put<std::uint8_t>(out, 2);   // multi-class
  put<std::uint8_t>(out, 1);   // averaged
  put<std::uint32_t>(out, 1);  // targets
  put_array<std::uint32_t>(out, {2});
  put_array<std::uint32_t>(out, {1, 2});
  put_array<std::int32_t>(out, {0, 0});    // target_id
  put_array<std::int32_t>(out, {-1, -1});  // class_id
  const std::string_view name = "identity_multiclass";
  put_array<char>(out, std::vector<char>(name.begin(), name.end()));
  put<float>(out, 1.0F);
  put<float>(out, 1.0F);
  put_array<double>(out, {0.0, 0.0});
  put_array<char>(out, {'{', '}'});
  put<std::int32_t>(out, 0);  // extensions

  const auto tree = [&out](const std::vector<std::int8_t>& type, const std::vector<int>& left,
                           const std::vector<int>& right, const std::vector<int>& feature,
                           const std::vector<double>& threshold,
                           const std::vector<std::int8_t>& comparison,
                           const std::vector<double>& values,
                           const std::vector<std::uint64_t>& begin,
                           const std::vector<std::uint64_t>& end) {
    const std::size_t n = type.size();
    put<std::int32_t>(out, static_cast<std::int32_t>(n));
    put<std::uint8_t>(out, 0);
    put_array(out, type);
    put_array<std::int32_t>(out, {left.begin(), left.end()});
    put_array<std::int32_t>(out, {right.begin(), right.end()});
    put_array<std::int32_t>(out, {feature.begin(), feature.end()});
    put_array(out, std::vector<std::uint8_t>(n));
    put_array(out, std::vector<double>(n));
    put_array(out, threshold);
    put_array(out, comparison);
    put_array(out, std::vector<std::uint8_t>(n));
    put_array(out, values);
    put_array(out, begin);
    put_array(out, end);
    put_array<std::uint32_t>(out, {});
    put_array(out, std::vector<std::uint64_t>(n));
    put_array(out, std::vector<std::uint64_t>(n));
    put_array<std::uint64_t>(out, {});
    put_array<std::uint8_t>(out, {});
    put_array(out, std::vector<double>(n));
    put_array(out, std::vector<std::uint8_t>(n));
    put_array<double>(out, {});
    put_array<std::uint8_t>(out, {});
    put<std::int32_t>(out, 0);
    put<std::int32_t>(out, 0);
  };
  tree({1, 0, 1, 0, 0}, {1, -1, 3, -1, -1}, {2, -1, 4, -1, -1}, {0, -1, 1, -1, -1},
       {0.5, 0, -1.0, 0, 0}, {3, 0, 3, 0, 0}, {1, 0, 0.25, 0.75, 0, 1}, {0, 0, 0, 2, 4},
       {0, 2, 0, 4, 6});
  tree({0}, {-1}, {-1}, {-1}, {0}, {0}, {0.5, 0.5}, {0}, {2});
  return out;
}

// A damaged file may fail in the one way that is meant, and else is a forest like any other.
void use(std::string_view data) {
  try {
    const auto forest = make_packed_forest(read_treelite(data));
    if (forest->n_features() > 1000 || forest->n_outputs() > 1000) return;
    const std::vector<float> x(forest->n_features());
    std::vector<double> out(forest->n_outputs());
    forest->predict(x.data(), out.data());
  } catch (const std::invalid_argument&) {
  }
}

}  // namespace

TEST_CASE("treelite unit: arrays of a forest") {
  const ForestArrays found = read_treelite(two_trees());
  CHECK(found.n_features == 2);
  CHECK(found.n_outputs == 2);
  CHECK(found.tree_offset == std::vector<std::int64_t>{0, 5, 6});
  CHECK(found.feature == std::vector<std::int32_t>{0, -1, 1, -1, -1, -1});
  CHECK(found.threshold == std::vector<double>{0.5, 0, -1.0, 0, 0, 0});
  CHECK(found.left == std::vector<std::int32_t>{1, -1, 3, -1, -1, -1});
  CHECK(found.right == std::vector<std::int32_t>{2, -1, 4, -1, -1, -1});
  CHECK(found.leaf_index == std::vector<std::int32_t>{-1, 0, -1, 1, 2, 3});
  CHECK(found.leaf_values == std::vector<double>{1, 0, 0.25, 0.75, 0, 1, 0.5, 0.5});
}

TEST_CASE("treelite safety: truncated and lengthened files are refused") {
  const std::string data = two_trees();
  for (std::size_t length = 0; length < data.size(); ++length) {
    // In memory of its own, so that a sanitizer sees a byte beyond the end.
    const std::vector<char> cut(data.begin(), data.begin() + static_cast<std::ptrdiff_t>(length));
    CHECK_THROWS_AS((void)read_treelite({cut.data(), cut.size()}), std::invalid_argument);
  }
  CHECK_THROWS_AS((void)read_treelite(data + '\0'), std::invalid_argument);
}

TEST_CASE("treelite safety: damaged files") {
  const std::string data = two_trees();
  for (std::size_t at = 0; at < data.size(); ++at) {
    for (unsigned bit = 0; bit < 8; ++bit) {
      std::string damaged = data;
      damaged[at] = static_cast<char>(static_cast<unsigned char>(damaged[at]) ^ (1U << bit));
      use(damaged);
    }
  }
  std::mt19937 rng(11);
  constexpr std::uint64_t kLengths[] = {0, 1, 3, 1ULL << 31U, 1ULL << 61U, 1ULL << 63U,
                                        std::numeric_limits<std::uint64_t>::max()};
  for (int run = 0; run < 20000; ++run) {
    std::string damaged = data;
    for (auto n = 1 + rng() % 3; n > 0; --n) {
      const std::uint64_t length = kLengths[rng() % std::size(kLengths)];
      const std::size_t at = rng() % (damaged.size() - sizeof(length));
      std::memcpy(damaged.data() + at, &length, sizeof(length));
    }
    use(damaged);
  }
}
