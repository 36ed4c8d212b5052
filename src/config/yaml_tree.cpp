#include "config/yaml_tree.h"

#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/exceptions.h>
#include <yaml-cpp/parser.h>

#include <algorithm>
#include <map>
#include <sstream>
#include <unordered_map>
#include <unordered_set>

#include "config/yaml_scalar.h"
#include "moeweld/base/error.h"
#include "moeweld/base/text.h"

namespace moeweld::config {
namespace {

constexpr int kMaxDepth = 32;
constexpr std::size_t kMaxNodes = 100'000;

[[noreturn]] void fail(const std::string& path, int line, std::string message, ErrorCode code = ErrorCode::kInvalidConfig) {
  throw Error(Problem{.code = code, .message = std::move(message), .path = path, .line = line, .tensor = {}});
}

int line_of(const YAML::Mark& mark) { return mark.is_null() ? 0 : mark.line + 1; }

class TreeBuilder : public YAML::EventHandler {
 public:
  explicit TreeBuilder(const std::string& path) : path_(path) {}

  YamlPointer root() const { return root_; }

  void OnDocumentStart(const YAML::Mark& mark) override { document_line_ = line_of(mark); }
  void OnDocumentEnd() override {}

  void OnNull(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    auto node = std::make_shared<YamlNode>();
    node->line = line_of(mark);
    place(node, anchor);
  }
  void OnScalar(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor, const std::string& value) override {
    auto node = std::make_shared<YamlNode>();
    node->line = line_of(mark);
    node->text = value;
    node->is_plain = tag == "?" || tag.empty();
    check_tag(tag, node->line);
    place(node, anchor);
  }
  void OnAlias(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    const auto found = anchors_.find(anchor);
    if (found == anchors_.end()) fail(path_, line_of(mark), "An alias stands inside its own anchor. Write the value out.");
    if (static_cast<int>(open_.size()) + found->second->height > kMaxDepth) fail_depth(line_of(mark));
    place(found->second, 0);
  }
  void OnSequenceStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor, YAML::EmitterStyle::value) override {
    open(mark, tag, anchor, YamlNode::Kind::kList);
  }
  void OnSequenceEnd() override { close(); }
  void OnMapStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor, YAML::EmitterStyle::value) override {
    open(mark, tag, anchor, YamlNode::Kind::kMapping);
  }
  void OnMapEnd() override { close(); }

  int document_line() const { return document_line_; }

 private:
  struct Open {
    std::shared_ptr<YamlNode> node;
    YAML::anchor_t anchor = 0;
    YamlPointer key;                   ///< of a mapping: read, its value not yet
    std::vector<YamlPointer> merged;   ///< values of "<<"
    std::unordered_set<std::string> keys;
  };

  [[noreturn]] void fail_depth(int line) const { fail(path_, line, "The file nests deeper than " + std::to_string(kMaxDepth) + " levels."); }

  void check_tag(const std::string& tag, int line) const {
    if (tag.starts_with("!") && tag.size() > 1) fail(path_, line, "The YAML tag '" + printable(tag, 60) + "' is not known. Remove it.");
  }

  void open(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor, YamlNode::Kind kind) {
    Open level;
    level.node = std::make_shared<YamlNode>();
    level.node->kind = kind;
    level.node->line = line_of(mark);
    level.anchor = anchor;
    check_tag(tag, level.node->line);
    if (open_.size() + 1 > kMaxDepth) fail_depth(level.node->line);
    open_.push_back(std::move(level));
  }

  void grow(YamlNode& node, const YamlNode& child) const {
    node.num_nodes += child.num_nodes;
    node.height = std::max(node.height, child.height + 1);
    if (node.num_nodes > kMaxNodes) fail(path_, node.line, "The file expands to more than 100000 values, its aliases counted each time.");
  }

  void close() {
    Open level = std::move(open_.back());
    open_.pop_back();
    for (const YamlPointer& source : level.merged) merge(level, *source);
    place(level.node, level.anchor);
  }

  /// "<<": keys that stand in the mapping itself win, then those of earlier sources.
  void merge(Open& level, const YamlNode& source) {
    if (source.kind == YamlNode::Kind::kList) {
      for (const YamlPointer& item : source.items) {
        if (item->kind != YamlNode::Kind::kMapping) fail(path_, source.line, "'<<' takes a mapping or a list of mappings.");
        merge(level, *item);
      }
      return;
    }
    if (source.kind != YamlNode::Kind::kMapping) fail(path_, source.line, "'<<' takes a mapping or a list of mappings.");
    for (const YamlEntry& entry : source.entries) {
      if (!level.keys.insert(entry.key).second) continue;
      grow(*level.node, *entry.value);
      level.node->entries.push_back(entry);
    }
  }

  void place(const YamlPointer& node, YAML::anchor_t anchor) {
    if (anchor != 0) anchors_[anchor] = node;
    if (open_.empty()) {
      root_ = node;
      return;
    }
    Open& level = open_.back();
    if (level.node->kind == YamlNode::Kind::kList) {
      grow(*level.node, *node);
      level.node->items.push_back(node);
      return;
    }
    if (level.key == nullptr) {
      if (node->kind != YamlNode::Kind::kScalar) fail(path_, node->line, "A key must be a plain word, not a list or a mapping.");
      level.key = node;
      return;
    }
    const YamlPointer key = std::exchange(level.key, nullptr);
    if (key->text == "<<" && key->is_plain) {
      level.merged.push_back(node);
      return;
    }
    if (!level.keys.insert(key->text).second) {
      const YamlEntry* first = level.node->find(key->text);
      fail(path_, key->line,
           "The key '" + printable(key->text, 60) + "' is there twice" +
               (first == nullptr ? "." : ", first in line " + std::to_string(first->line) + ".") + " Remove one.");
    }
    grow(*level.node, *node);
    level.node->entries.push_back({key->text, key->line, node});
  }

  const std::string& path_;
  int document_line_ = 0;
  std::vector<Open> open_;
  std::unordered_map<YAML::anchor_t, YamlPointer> anchors_;
  YamlPointer root_;
};

}  // namespace

bool YamlNode::is_null() const { return kind == Kind::kScalar && is_plain && is_yaml_null(text); }

const YamlEntry* YamlNode::find(const std::string& key) const {
  const auto found = std::ranges::find(entries, key, &YamlEntry::key);
  return found == entries.end() ? nullptr : &*found;
}

YamlPointer parse_yaml(const std::string& text, const std::string& path) {
  try {
    std::istringstream stream(text);
    YAML::Parser parser(stream);
    TreeBuilder first(path);
    if (!parser.HandleNextDocument(first) || first.root() == nullptr || first.root()->is_null()) {
      fail(path, 0, "The file is empty. A configuration names at least a merge_method or experts.");
    }
    for (TreeBuilder next(path); parser.HandleNextDocument(next);) {
      if (next.root() == nullptr || next.root()->is_null()) continue;
      fail(path, std::max(next.document_line(), 1),
           "A second document begins here. Several merges in one file come with a later version; put each into a file of its own.",
           ErrorCode::kUnsupported);
    }
    return first.root();
  } catch (const YAML::Exception& error) {
    const std::string where = error.mark.is_null() ? "" : " (column " + std::to_string(error.mark.column + 1) + ")";
    fail(path, line_of(error.mark), "This is not valid YAML: " + printable(error.msg, 200) + where + ".");
  }
}

}  // namespace moeweld::config
