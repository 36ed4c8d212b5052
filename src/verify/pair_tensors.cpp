#include <map>
#include <set>

#include "moeweld/model/catalog.h"
#include "moeweld/model/family.h"
#include "moeweld/verify/diff.h"

namespace moeweld::verify {

namespace {

using formats::Checkpoint;
using formats::CheckpointTensor;

DiffSide side(const Checkpoint& checkpoint, DType dtype, const Shape& shape, std::uint32_t file, std::uint64_t begin) {
  return {checkpoint.files[file].path, checkpoint.files[file].identity, dtype, shape, begin};
}

DiffSide side(const Checkpoint& checkpoint, const CheckpointTensor& tensor) {
  return side(checkpoint, tensor.dtype, tensor.shape, tensor.file, tensor.begin);
}

/// The catalog of a model whose tensors are left over; nothing when it has none that makes sense.
std::optional<model::Catalog> catalog_of(const Checkpoint& checkpoint) {
  try {
    model::Catalog catalog = model::make_catalog(checkpoint, {});
    if (catalog.family != nullptr) return catalog;
  } catch (const Error&) {  // a model that cannot be merged can still be compared name by name
  }
  return std::nullopt;
}

/// Catalog entries that are (parts of) the tensors of `left`.
std::map<model::TensorKey, const model::CatalogEntry*> entries_of(const model::Catalog& catalog, const std::set<std::uint32_t>& left) {
  std::map<model::TensorKey, const model::CatalogEntry*> result;
  for (const auto& [key, entry] : catalog.entries) {
    if (left.contains(entry.tensor)) result.emplace(key, &entry);
  }
  return result;
}

class Pairing {
 public:
  Pairing(const Checkpoint& a, const Checkpoint& b) : a_(a), b_(b) {}

  DiffReport run() {
    for (std::uint32_t i = 0; i < a_.tensors.size(); ++i) {
      if (b_.find(a_.tensors[i].name) == nullptr) left_a_.insert(i);
    }
    for (std::uint32_t i = 0; i < b_.tensors.size(); ++i) {
      if (a_.find(b_.tensors[i].name) == nullptr) left_b_.insert(i);
    }
    for (const CheckpointTensor& tensor : a_.tensors) {
      if (const CheckpointTensor* other = b_.find(tensor.name)) add(tensor.name, side(a_, tensor), side(b_, *other));
    }
    if (!left_a_.empty() && !left_b_.empty()) match_by_keys();
    for (const std::uint32_t index : left_a_) report_.only_in_a.push_back(a_.tensors[index].name);
    for (const std::uint32_t index : left_b_) report_.only_in_b.push_back(b_.tensors[index].name);
    return std::move(report_);
  }

 private:
  void add(std::string name, DiffSide a, DiffSide b) {
    TensorDiff pair;
    pair.name = std::move(name);
    pair.has_values = a.shape == b.shape && is_arithmetic(a.dtype) && is_arithmetic(b.dtype);
    if (pair.has_values || (a.shape == b.shape && a.dtype == b.dtype)) pair.figures.emplace();
    pair.a = std::move(a);
    pair.b = std::move(b);
    report_.tensors.push_back(std::move(pair));
  }

  /// Experts of one layout against experts of the other: a tensor is accounted for when all its parts have a partner.
  void match_by_keys() {
    const std::optional<model::Catalog> catalog_a = catalog_of(a_);
    const std::optional<model::Catalog> catalog_b = catalog_of(b_);
    if (!catalog_a || !catalog_b || catalog_a->family != catalog_b->family) return;
    const auto entries_a = entries_of(*catalog_a, left_a_);
    const auto entries_b = entries_of(*catalog_b, left_b_);
    // A tensor of which some part has no partner is reported as a whole.
    const auto drop_incomplete = [](const auto& entries, const auto& others, const std::set<std::uint32_t>& left) {
      std::set<std::uint32_t> complete;
      for (const auto& [key, entry] : entries) complete.insert(entry->tensor);
      for (const auto& [key, entry] : entries) {
        if (!others.contains(key)) complete.erase(entry->tensor);
      }
      std::set<std::uint32_t> remaining = left;
      for (const std::uint32_t tensor : complete) remaining.erase(tensor);
      return remaining;
    };
    const std::set<std::uint32_t> remaining_a = drop_incomplete(entries_a, entries_b, left_a_);
    const std::set<std::uint32_t> remaining_b = drop_incomplete(entries_b, entries_a, left_b_);
    for (const auto& [key, entry] : entries_a) {
      const auto other = entries_b.find(key);
      if (other == entries_b.end()) continue;
      add(model::tensor_name(catalog_a->family, key), side(a_, entry->dtype, entry->shape, entry->file, entry->begin),
          side(b_, other->second->dtype, other->second->shape, other->second->file, other->second->begin));
    }
    left_a_ = remaining_a;
    left_b_ = remaining_b;
  }

  const Checkpoint& a_;
  const Checkpoint& b_;
  std::set<std::uint32_t> left_a_;
  std::set<std::uint32_t> left_b_;
  DiffReport report_;
};

}  // namespace

DiffReport pair_tensors(const Checkpoint& a, const Checkpoint& b) { return Pairing(a, b).run(); }

}  // namespace moeweld::verify
