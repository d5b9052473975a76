#include "config/yaml.h"

#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/exceptions.h>
#include <yaml-cpp/mark.h>
#include <yaml-cpp/parser.h>

#include <algorithm>
#include <map>
#include <sstream>
#include <utility>

#include "base/error.h"

namespace lh {
namespace {

/// Turns the parser's marks (zero-based, columns in bytes) into positions for people.
class Locator {
 public:
  Locator(std::string_view text, const std::string& name)
      : text_(text), source_(std::make_shared<const std::string>(name)), starts_{0} {
    for (size_t i = 0; i < text.size(); ++i)
      if (text[i] == '\n') starts_.push_back(i + 1);
  }

  Position at(const YAML::Mark& mark) const {
    const size_t line = static_cast<size_t>(std::max(mark.line, 0));
    if (line >= starts_.size()) return {source_, static_cast<int>(line) + 1, 1};
    const size_t begin = starts_[line];
    const size_t end = std::min(begin + static_cast<size_t>(std::max(mark.column, 0)), text_.size());
    int column = 1;
    for (size_t i = begin; i < end; ++i)
      column += (static_cast<unsigned char>(text_[i]) & 0xC0) != 0x80;
    return {source_, static_cast<int>(line) + 1, column};
  }

 private:
  std::string_view text_;
  std::shared_ptr<const std::string> source_;
  std::vector<size_t> starts_;
};

/// Builds the tree from the parser's events, refusing too much depth or size while it grows.
class TreeBuilder : public YAML::EventHandler {
 public:
  TreeBuilder(const Locator& locator, Problems& problems)
      : locator_(locator), problems_(problems) {}

  YamlNode take_root() { return std::move(root_); }

  void OnDocumentStart(const YAML::Mark&) override {}
  void OnDocumentEnd() override {}

  void OnNull(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    finish(leaf(mark, YamlNode::Kind::kNull), anchor, 1);
  }

  void OnScalar(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                const std::string& value) override {
    check_tag(mark, tag);
    YamlNode node = leaf(mark, YamlNode::Kind::kScalar);
    node.text = value;
    node.quoted = tag == "!";
    // Long text weighs more than one value, or aliases of it could fill the memory.
    finish(std::move(node), anchor, 1 + value.size() / 32);
  }

  void OnAlias(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    const auto found = anchors_.find(anchor);
    if (found == anchors_.end()) refuse(mark, "an alias cannot stand inside what it refers to");
    finish(YamlNode(found->second.node), YAML::NullAnchor, found->second.nodes);
  }

  void OnSequenceStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                       YAML::EmitterStyle::value) override {
    open(mark, tag, anchor, YamlNode::Kind::kList);
  }
  void OnSequenceEnd() override { close(); }

  void OnMapStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                  YAML::EmitterStyle::value) override {
    open(mark, tag, anchor, YamlNode::Kind::kMap);
  }
  void OnMapEnd() override { close(); }

 private:
  struct Frame {
    YamlNode node;
    YAML::anchor_t anchor = YAML::NullAnchor;
    size_t nodes_before = 0;  // total when it was opened, to know its own size at the end
    bool has_key = false;
    std::string key;
    Position key_position;
  };
  struct Anchored {
    YamlNode node;
    size_t nodes = 0;
  };

  [[noreturn]] void refuse(const YAML::Mark& mark, std::string_view message) const {
    fail<ConfigError>("{}: {}", locator_.at(mark).text(), message);
  }

  void check_tag(const YAML::Mark& mark, const std::string& tag) const {
    if (tag.empty() || tag == "?" || tag == "!") return;
    refuse(mark, fmt::format("the tag {} is not supported; write the plain value", shown(tag)));
  }

  YamlNode leaf(const YAML::Mark& mark, YamlNode::Kind kind) const {
    YamlNode node;
    node.kind = kind;
    node.position = locator_.at(mark);
    return node;
  }

  void count(const Position& position, size_t nodes) {
    nodes_ += nodes;
    if (nodes_ > kMaxYamlNodes)
      fail<ConfigError>("{}: more than {} values (aliases counted in full) is no recipe",
                        position.text(), kMaxYamlNodes);
  }

  void open(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
            YamlNode::Kind kind) {
    check_tag(mark, tag);
    // Thrown from the event, this also stops the parser's own recursion.
    if (stack_.size() >= kMaxYamlDepth)
      refuse(mark, fmt::format("nested more than {} levels deep", kMaxYamlDepth));
    if (!stack_.empty() && stack_.back().node.is_map() && !stack_.back().has_key)
      refuse(mark, "expected a plain word as key, got a list or section");
    Frame frame;
    frame.node = leaf(mark, kind);
    frame.anchor = anchor;
    frame.nodes_before = nodes_;
    count(frame.node.position, 1);
    stack_.push_back(std::move(frame));
  }

  void close() {
    Frame frame = std::move(stack_.back());
    stack_.pop_back();
    const size_t nodes = nodes_ - frame.nodes_before;
    nodes_ = frame.nodes_before;  // finish() counts them again
    finish(std::move(frame.node), frame.anchor, nodes);
  }

  void finish(YamlNode node, YAML::anchor_t anchor, size_t nodes) {
    count(node.position, nodes);
    if (anchor != YAML::NullAnchor) {
      // Copies under anchors are not part of the tree, so nested anchors are bounded apart.
      anchored_nodes_ += nodes;
      if (anchored_nodes_ > kMaxYamlNodes)
        fail<ConfigError>("{}: too much behind anchors", node.position.text());
      anchors_[anchor] = {node, nodes};
    }
    if (stack_.empty()) {
      root_ = std::move(node);
      return;
    }
    Frame& parent = stack_.back();
    if (parent.node.is_list()) {
      parent.node.items.push_back(std::move(node));
    } else if (!parent.has_key) {
      if (!node.is_scalar())
        fail<ConfigError>("{}: expected a plain word as key, got {}", node.position.text(),
                          node.description());
      parent.has_key = true;
      parent.key = std::move(node.text);
      parent.key_position = node.position;
    } else {
      parent.has_key = false;
      add_entry(parent, std::move(node));
    }
  }

  void add_entry(Frame& parent, YamlNode value) {
    if (const YamlEntry* first = parent.node.find(parent.key); first != nullptr) {
      std::string path;
      for (const Frame& frame : stack_)
        if (frame.has_key) path = join_key(path, frame.key);
      problems_.add(parent.key_position, join_key(path, parent.key),
                    fmt::format("duplicate key, already set at line {}", first->position.line));
      return;
    }
    if (parent.node.entries.size() >= kMaxYamlKeys)
      fail<ConfigError>("{}: more than {} keys in one section", parent.key_position.text(),
                        kMaxYamlKeys);
    parent.node.entries.push_back({std::move(parent.key), parent.key_position, std::move(value)});
  }

  const Locator& locator_;
  Problems& problems_;
  YamlNode root_;
  std::vector<Frame> stack_;
  std::map<YAML::anchor_t, Anchored> anchors_;
  size_t nodes_ = 0;
  size_t anchored_nodes_ = 0;
};

/// A second document in the stream carries no meaning here; any event proves there is one.
class SecondDocument : public YAML::EventHandler {
 public:
  explicit SecondDocument(const Locator& locator) : locator_(locator) {}
  void OnDocumentStart(const YAML::Mark& mark) override {
    fail<ConfigError>("{}: expected one YAML document per file, got a second",
                      locator_.at(mark).text());
  }
  void OnDocumentEnd() override {}
  void OnNull(const YAML::Mark&, YAML::anchor_t) override {}
  void OnAlias(const YAML::Mark&, YAML::anchor_t) override {}
  void OnScalar(const YAML::Mark&, const std::string&, YAML::anchor_t,
                const std::string&) override {}
  void OnSequenceStart(const YAML::Mark&, const std::string&, YAML::anchor_t,
                       YAML::EmitterStyle::value) override {}
  void OnSequenceEnd() override {}
  void OnMapStart(const YAML::Mark&, const std::string&, YAML::anchor_t,
                  YAML::EmitterStyle::value) override {}
  void OnMapEnd() override {}

 private:
  const Locator& locator_;
};

}  // namespace

YamlEntry* YamlNode::find(std::string_view key) {
  for (YamlEntry& entry : entries)
    if (entry.key == key) return &entry;
  return nullptr;
}

const YamlEntry* YamlNode::find(std::string_view key) const {
  return const_cast<YamlNode*>(this)->find(key);
}

std::string YamlNode::description() const {
  switch (kind) {
    case Kind::kNull: return "nothing";
    case Kind::kScalar: return quoted ? "the text " + shown(text) : shown(text);
    case Kind::kList: return "a list";
    case Kind::kMap: return "a section";
  }
  return "";
}

YamlNode parse_yaml(std::string_view text, const std::string& name, Problems& problems) {
  const Locator locator(text, name);
  try {
    std::istringstream stream{std::string(text)};
    YAML::Parser parser(stream);
    TreeBuilder builder(locator, problems);
    YamlNode root;
    root.position = locator.at(YAML::Mark());
    if (parser.HandleNextDocument(builder)) {
      root = builder.take_root();
      SecondDocument second(locator);
      parser.HandleNextDocument(second);
    }
    return root;
  } catch (const YAML::Exception& error) {
    fail<ConfigError>("{}: not valid YAML: {}", locator.at(error.mark).text(), error.msg);
  }
}

}  // namespace lh
