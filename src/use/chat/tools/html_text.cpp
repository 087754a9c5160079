// Walks the tree that libxml2 makes of a page.
#include "chat/tools/html_text.h"

#include <dlfcn.h>
#include <libxml/HTMLparser.h>

#include <algorithm>
#include <array>
#include <limits>
#include <memory>

namespace sluice::chat {
namespace {

constexpr std::array<std::string_view, 9> kHidden = {
    "script", "style", "noscript", "template", "svg", "iframe", "object", "head", "select"};
constexpr std::array<std::string_view, 34> kBlocks = {
    "address",    "article", "aside",  "blockquote", "br",   "dd",  "div",  "dl", "dt",
    "figcaption", "figure",  "footer", "form",       "h1",   "h2",  "h3",   "h4", "h5",
    "h6",         "header",  "hr",     "li",         "main", "nav", "ol",   "p",  "pre",
    "section",    "table",   "td",     "th",         "tr",   "ul",  "title"};

std::string_view view(const xmlChar* text) {
  return text == nullptr ? std::string_view() : reinterpret_cast<const char*>(text);
}

template <size_t count>
bool one_of(std::string_view name, const std::array<std::string_view, count>& names) {
  return std::ranges::find(names, name) != names.end();
}

std::string attribute(xmlNode* node, const char* name) {
  std::string value;
  for (const xmlAttr* found = node->properties; found != nullptr; found = found->next)
    if (view(found->name) == name)
      for (const xmlNode* part = found->children; part != nullptr; part = part->next)
        value += view(part->content);
  return value;
}

// Loaded when the first page is read: linked, it and what it needs would cost every run of the
// program 2 MB of memory. It stays loaded.
struct XmlLibrary {
  decltype(&htmlReadMemory) read = nullptr;
  decltype(&xmlDocGetRootElement) root = nullptr;
  decltype(&xmlFreeDoc) free = nullptr;
  decltype(&xmlSetStructuredErrorFunc) set_on_error = nullptr;
};

// Some of what is wrong with a page is told whatever the options say, by default on the terminal.
extern "C" void pass_over(void*, const xmlError*) {}

Result<XmlLibrary> load_libxml2() {
#if defined(__APPLE__)
  constexpr const char* kName = "/usr/lib/libxml2.2.dylib";
#else
  constexpr const char* kName = "libxml2.so.2";
#endif
  XmlLibrary xml;
  if (void* library = ::dlopen(kName, RTLD_NOW | RTLD_LOCAL); library != nullptr) {
    xml.read = reinterpret_cast<decltype(xml.read)>(::dlsym(library, "htmlReadMemory"));
    xml.root = reinterpret_cast<decltype(xml.root)>(::dlsym(library, "xmlDocGetRootElement"));
    xml.free = reinterpret_cast<decltype(xml.free)>(::dlsym(library, "xmlFreeDoc"));
    xml.set_on_error =
        reinterpret_cast<decltype(xml.set_on_error)>(::dlsym(library, "xmlSetStructuredErrorFunc"));
  }
  if (xml.read == nullptr || xml.root == nullptr || xml.free == nullptr ||
      xml.set_on_error == nullptr)
    return fail(ErrorCode::kUnsupported, "pages cannot be read without {}", kName);
  return xml;
}

// White space becomes one space, between blocks one line end.
class Writer {
 public:
  void text(std::string_view piece) {
    for (const char c : piece) {
      if (std::string_view(" \t\n\r\f").find(c) != std::string_view::npos) {
        space_ = true;
        continue;
      }
      if (space_ && !out.empty() && out.back() != '\n') out += ' ';
      space_ = false;
      out += c;
    }
  }
  void block() {
    if (!out.empty() && out.back() != '\n') out += '\n';
    space_ = false;
  }
  std::string out;

 private:
  bool space_ = false;
};

class Walker {
 public:
  // Without recursion: pages may be nested as deeply as they like.
  void walk(xmlNode* root) {
    for (xmlNode* node = root; node != nullptr;) {
      if (enter(node) && node->children != nullptr) {
        node = node->children;
        continue;
      }
      leave(node);
      while (node != root && node->next == nullptr) {
        node = node->parent;
        leave(node);
      }
      node = node == root ? nullptr : node->next;
    }
    writer_.block();
    result.text = std::move(writer_.out);
  }
  HtmlText result;

 private:
  bool enter(xmlNode* node) {
    if (node->type == XML_TEXT_NODE || node->type == XML_CDATA_SECTION_NODE) {
      writer_.text(view(node->content));
      return false;
    }
    if (node->type != XML_ELEMENT_NODE) return false;
    const std::string_view name = view(node->name);
    if (name == "head") find_title(node);
    if (one_of(name, kHidden)) return false;
    if (one_of(name, kBlocks)) writer_.block();
    if (name == "a" && link_ == nullptr) {
      link_ = node;
      link_start_ = writer_.out.size();
    }
    return true;
  }
  void leave(xmlNode* node) {
    if (node->type != XML_ELEMENT_NODE) return;
    if (one_of(view(node->name), kBlocks)) writer_.block();
    if (node != link_) return;
    link_ = nullptr;
    std::string text = writer_.out.substr(std::min(link_start_, writer_.out.size()));
    while (!text.empty() && (text.back() == '\n' || text.back() == ' ')) text.pop_back();
    text.erase(0, text.find_first_not_of(" \n"));
    result.links.push_back({attribute(node, "href"), std::move(text), attribute(node, "class")});
  }
  void find_title(xmlNode* head) {
    for (xmlNode* node = head->children; node != nullptr; node = node->next) {
      if (node->type != XML_ELEMENT_NODE || view(node->name) != "title") continue;
      Writer title;
      for (xmlNode* text = node->children; text != nullptr; text = text->next)
        title.text(view(text->content));
      result.title = std::move(title.out);
    }
  }

  Writer writer_;
  xmlNode* link_ = nullptr;
  size_t link_start_ = 0;
};

}  // namespace

Result<HtmlText> html_text(std::string_view html) {
  if (html.size() > static_cast<size_t>(std::numeric_limits<int>::max()))
    return fail(ErrorCode::kCorrupt, "the page is too long");
  SLUICE_ASSIGN(const XmlLibrary xml, load_libxml2());
  // Of this thread. The library's own type of it has changed from version to version.
  xml.set_on_error(nullptr, reinterpret_cast<xmlStructuredErrorFunc>(&pass_over));
  const std::unique_ptr<xmlDoc, decltype(xml.free)> document(
      xml.read(html.data(), static_cast<int>(html.size()), nullptr, nullptr,
               HTML_PARSE_RECOVER | HTML_PARSE_NOERROR | HTML_PARSE_NOWARNING | HTML_PARSE_NONET),
      xml.free);
  xmlNode* root = document == nullptr ? nullptr : xml.root(document.get());
  if (root == nullptr) return fail(ErrorCode::kCorrupt, "the page is empty or no HTML");
  Walker walker;
  walker.walk(root);
  return std::move(walker.result);
}

}  // namespace sluice::chat
