#include <algorithm>

#include "forest_rows.hpp"
#include "raxe_fast/compiled_heads.hpp"
#include "raxe_fast/forest.hpp"

namespace raxe_fast {
namespace {

class CompiledForest final : public Forest {
 public:
  explicit CompiledForest(const CompiledHead& head) noexcept : head_(head) {}

  std::size_t n_features() const noexcept override { return head_.n_features; }
  std::size_t n_outputs() const noexcept override { return head_.n_outputs; }
  std::size_t n_trees() const noexcept override { return head_.n_trees; }
  std::string_view kind() const noexcept override { return "compiled"; }

  void predict(const float* features, double* out) const noexcept override {
    std::uint32_t row[kMaxCompiledTrees];
    head_.leaf_rows(features, row);
    std::fill_n(out, head_.n_outputs, 0.0);
    add_leaf_rows(head_.leaf_values, row, head_.n_trees, head_.n_outputs, out);
    const double trees = static_cast<double>(head_.n_trees);
    for (std::size_t k = 0; k < head_.n_outputs; ++k) out[k] /= trees;
  }

 private:
  const CompiledHead& head_;  // static storage
};

}  // namespace

std::unique_ptr<Forest> make_compiled_forest(std::string_view sha256) {
  for (const CompiledHead& head : compiled_head_registry()) {
    if (head.sha256 == sha256) return std::make_unique<CompiledForest>(head);
  }
  return nullptr;
}

std::vector<std::string_view> compiled_heads() {
  std::vector<std::string_view> names;
  for (const CompiledHead& head : compiled_head_registry()) names.push_back(head.sha256);
  return names;
}

}  // namespace raxe_fast
