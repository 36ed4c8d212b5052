#include "config/yaml_document.h"

#include <yaml-cpp/eventhandler.h>

#include <algorithm>
#include <set>
#include <sstream>
#include <vector>

#include "moeweld/base/text.h"

namespace moeweld::config {

namespace {

constexpr std::size_t kMaxBytes = 10'000'000;
constexpr int kMaxDepth = 32;
constexpr std::size_t kMaxNodes = 100'000;

[[noreturn]] void refuse(std::string message, const std::string& path, int line = 0) {
  throw Error(Problem{ErrorCode::kInvalidConfig, std::move(message), path, line, {}});
}

/// yaml-cpp 0.7 recurses over nesting without a bound: brackets and compact "- - -" are bounded before it sees them. An upper bound is
/// enough, so brackets in plain text count too; in quotes and comments they do not.
void check_nesting(const std::string& text, const std::string& path) {
  constexpr int kMostBrackets = 64;
  int brackets = 0;
  int line = 1;
  std::vector<std::size_t> indents;
  for (std::size_t begin = 0; begin <= text.size();) {
    const std::size_t end = std::min(text.find('\n', begin), text.size());
    std::size_t dashes = 0;
    std::size_t questions = 0;
    bool leading = true;
    char quote = 0;
    for (std::size_t i = begin; i < end; ++i) {
      const char c = text[i];
      if (quote != 0) {
        if (c == '\\' && quote == '"')
          ++i;
        else if (c == quote)
          quote = 0;
        continue;
      }
      // Only an indicator with a blank behind it opens a level: a rule of dashes in a prompt or a template does not.
      const bool is_indicator = leading && (i + 1 == end || text[i + 1] == ' ' || text[i + 1] == '\t');
      if (is_indicator && c == '-')
        ++dashes;
      else if (is_indicator && (c == '?' || c == ':'))
        ++questions;
      else if (c != ' ' && c != '\t')
        leading = false;
      if (c == '#' && (i == begin || text[i - 1] == ' ')) break;
      if ((c == '"' || c == '\'') && (i == begin || std::string_view(" [{,:-").find(text[i - 1]) != std::string_view::npos)) quote = c;
      if (c == '[' || c == '{') ++brackets;
      if ((c == ']' || c == '}') && brackets > 0) --brackets;
      if (brackets > kMostBrackets)
        refuse("lists and mappings are nested deeper than " + std::to_string(kMaxDepth) + " levels", path, line);
    }
    const bool is_marker = end - begin == 3 && text.compare(begin, 3, "---") == 0;
    if (!is_marker && (dashes > kMaxDepth || questions > kMaxDepth) && text.find_first_not_of("- \t\r", begin) < end) {
      refuse("lists are nested deeper than " + std::to_string(kMaxDepth) + " levels", path, line);
    }
    const std::size_t indent = text.find_first_not_of(' ', begin) - begin;
    if (begin + indent < end) {
      while (!indents.empty() && indents.back() >= indent) indents.pop_back();
      indents.push_back(indent);
      if (indents.size() > 4 * kMaxDepth)
        refuse("the text is indented deeper than " + std::to_string(4 * kMaxDepth) + " levels", path, line);
    }
    begin = end + 1;
    ++line;
  }
}

/// yaml-cpp 0.7 makes empty documents without end of a token that no document can begin with ("!tag,"), so documents are counted before a
/// tree is built.
class DocumentCheck : public YAML::EventHandler {
 public:
  explicit DocumentCheck(const std::string& path) : path_(path) {}

  void OnDocumentStart(const YAML::Mark& mark) override {
    if (mark.pos == last_position_)
      refuse("is not valid YAML: nothing can begin here (column " + std::to_string(mark.column + 1) + ")", path_, mark.line + 1);
    if (++num_documents_ > kMaxDocuments) refuse("holds more than " + std::to_string(kMaxDocuments) + " documents", path_, mark.line + 1);
    last_position_ = mark.pos;
  }
  void OnDocumentEnd() override {}
  void OnNull(const YAML::Mark&, YAML::anchor_t) override {}
  void OnAlias(const YAML::Mark&, YAML::anchor_t) override {}
  void OnScalar(const YAML::Mark&, const std::string&, YAML::anchor_t, const std::string&) override {}
  void OnSequenceStart(const YAML::Mark&, const std::string&, YAML::anchor_t, YAML::EmitterStyle::value) override {}
  void OnSequenceEnd() override {}
  void OnMapStart(const YAML::Mark&, const std::string&, YAML::anchor_t, YAML::EmitterStyle::value) override {}
  void OnMapEnd() override {}

 private:
  static constexpr int kMaxDocuments = 1000;

  const std::string& path_;
  int num_documents_ = 0;
  int last_position_ = -1;
};

void check_documents(const std::string& text, const std::string& path) {
  std::istringstream stream(text);
  YAML::Parser parser(stream);
  DocumentCheck check(path);
  while (parser.HandleNextDocument(check)) {
  }
}

class TreeCheck {
 public:
  explicit TreeCheck(const std::string& path) : path_(path) {}

  void visit(const YAML::Node& node, int depth) {
    if (++num_nodes_ > kMaxNodes)
      refuse("the text expands to more than " + std::to_string(kMaxNodes) + " values; are aliases nested in each other?", path_);
    if (depth > kMaxDepth)
      refuse("lists and mappings are nested deeper than " + std::to_string(kMaxDepth) + " levels", path_, line_of(node));
    if (node.IsSequence()) {
      for (const YAML::Node& child : node) visit(child, depth + 1);
    } else if (node.IsMap()) {
      std::set<std::string> keys;
      for (const auto& pair : node) {
        if (!pair.first.IsScalar()) refuse("a key is not plain text", path_, line_of(pair.first));
        if (!keys.insert(pair.first.Scalar()).second) {
          refuse("key '" + printable(pair.first.Scalar()) + "' is here twice in one mapping; which one is meant?", path_,
                 line_of(pair.first));
        }
        visit(pair.second, depth + 1);
      }
    }
  }

 private:
  const std::string& path_;
  std::size_t num_nodes_ = 0;
};

/// What is wrong most often, where the parser's words do not say it.
std::string indentation_hint(const std::string& text, int line) {
  std::size_t begin = 0;
  for (int i = 1; i < line && begin != std::string::npos; ++i) {
    begin = text.find('\n', begin);
    if (begin != std::string::npos) ++begin;
  }
  if (line == 0 || begin == std::string::npos) return {};
  const std::size_t first = text.find_first_not_of(' ', begin);
  if (first != std::string::npos && text[first] == '\t') return " The line begins with a tab; YAML is indented with spaces.";
  return " Compare its indentation with that of the lines before.";
}

}  // namespace

int line_of(const YAML::Node& node) { return node.Mark().is_null() ? 0 : node.Mark().line + 1; }

YAML::Node load_yaml_document(const std::string& text, const std::string& path) {
  if (text.size() > kMaxBytes)
    refuse("has " + std::to_string(text.size()) + " bytes; a configuration has at most " + std::to_string(kMaxBytes), path);
  if (!is_utf8(text)) refuse("is not UTF-8 text", path);
  if (text.find('\0') != std::string::npos) refuse("holds a NUL byte, so it is not a YAML text", path);
  check_nesting(text, path);
  try {
    check_documents(text, path);
    std::vector<YAML::Node> documents;
    for (YAML::Node& document : YAML::LoadAll(text)) {
      if (document && !document.IsNull()) documents.push_back(document);
    }
    if (documents.empty()) refuse("holds no configuration", path);
    if (documents.size() > 1) {
      throw Error(Problem{
          ErrorCode::kUnsupported,
          "a second document starts here; several configurations in one file come with a later version. Put each in a file of its own.",
          path,
          line_of(documents[1]),
          {}});
    }
    TreeCheck(path).visit(documents.front(), 0);
    return documents.front();
  } catch (const YAML::Exception& error) {
    const int line = error.mark.is_null() ? 0 : error.mark.line + 1;
    refuse("is not valid YAML: " + printable(error.msg) + (line != 0 ? " (column " + std::to_string(error.mark.column + 1) + ")." : ".") +
               indentation_hint(text, line),
           path, line);
  }
}

}  // namespace moeweld::config
