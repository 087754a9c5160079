#include "report/panels.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <optional>

#include "report/html.h"
#include "report/scale.h"

namespace sluice::report {
namespace {

constexpr int kWidth = 340, kHeight = 164;
constexpr double kLeft = 30, kRight = 332, kTop = 12, kExact = 22, kBottom = 140;

// One place on the x axis: the solid dot, and the hollow one it is held against.
struct Pair {
  double x = 0;
  double solid = 0, hollow = 0;  // dB; +infinity: exact
  bool has_hollow = false;
  std::string tip;
};

struct Panel {
  std::string title;
  int columns = 0;  // places on the x axis; 0: names instead of numbers
  std::vector<Pair> pairs;
  std::vector<std::string> names;  // where columns is 0
};

struct Range {
  double low = INFINITY, high = -INFINITY;
  bool exact = false;
  void count(double db) {
    if (std::isinf(db)) {
      exact = true;
      return;
    }
    low = std::min(low, db);
    high = std::max(high, db);
  }
};

Range range_of(const std::vector<Panel>& panels) {
  Range range;
  for (const Panel& panel : panels)
    for (const Pair& pair : panel.pairs) {
      range.count(pair.solid);
      if (pair.has_hollow) range.count(pair.hollow);
    }
  if (range.low > range.high) range.low = 0, range.high = 10;
  range.low = std::floor(range.low / 5) * 5;
  range.high = std::max(range.low + 5, std::ceil(range.high / 5) * 5);
  return range;
}

class PanelDrawing {
 public:
  PanelDrawing(const Panel& panel, const Range& range)
      : panel_(panel),
        range_(range),
        y_{range.low, range.high, kBottom - 6, range.exact ? kExact + 16 : kTop + 6},
        x_{-0.5, std::max<double>(panel.columns, static_cast<double>(panel.names.size())) - 0.5,
           kLeft, kRight} {}

  std::string draw() {
    std::string out = fmt::format(
        R"(<figure class="panel"><figcaption>{}</figcaption><svg class="chart" viewBox="0 0 {} {}" role="img" aria-label="SQNR by layer of {}">)",
        escape(panel_.title), kWidth, kHeight, escape(panel_.title));
    draw_axes(out);
    for (const Pair& pair : panel_.pairs) draw_pair(out, pair);
    return out + "</svg></figure>";
  }

 private:
  double y_of(double db) const { return std::isinf(db) ? kExact : y_(db); }
  double step() const { return (kRight - kLeft) / std::max(1.0, x_.high - x_.low); }

  void draw_axes(std::string& out) {
    for (const double db : round_steps(range_.low, range_.high, 4)) {
      put(out, R"(<line class="grid" x1="{}" x2="{}" y1="{}" y2="{}"/>)", coordinate(kLeft),
          coordinate(kRight), coordinate(y_(db)), coordinate(y_(db)));
      put(out, R"(<text class="tick" x="{}" y="{}" text-anchor="end">{:g}</text>)",
          coordinate(kLeft - 5), coordinate(y_(db) + 4), db);
    }
    if (range_.exact) {
      put(out, R"(<line class="grid exact" x1="{}" x2="{}" y1="{}" y2="{}"/>)", coordinate(kLeft),
          coordinate(kRight), coordinate(kExact), coordinate(kExact));
      put(out, R"(<text class="tick" x="{}" y="{}" text-anchor="end">=</text>)",
          coordinate(kLeft - 5), coordinate(kExact + 4));
    }
    for (size_t i = 0; i < panel_.names.size(); ++i)
      put(out, R"(<text class="tick" x="{}" y="{}" text-anchor="middle">{}</text>)",
          coordinate(x_(static_cast<double>(i))), coordinate(kBottom + 14),
          escape(panel_.names[i]));
    for (const double layer : round_steps(0, panel_.columns - 1, 6))
      if (layer == std::floor(layer))
        put(out, R"(<text class="tick" x="{}" y="{}" text-anchor="middle">{:g}</text>)",
            coordinate(x_(layer)), coordinate(kBottom + 14), layer);
  }

  void draw_pair(std::string& out, const Pair& pair) {
    const std::string x = coordinate(x_(pair.x));
    const double radius = std::clamp(step() * 0.36, 1.6, 4.0);
    if (pair.has_hollow)
      put(out, R"(<line class="stem" x1="{0}" x2="{0}" y1="{1}" y2="{2}"/>)", x,
          coordinate(y_of(pair.hollow)), coordinate(y_of(pair.solid)));
    put(out, R"(<circle class="after" cx="{}" cy="{}" r="{}"/>)", x, coordinate(y_of(pair.solid)),
        coordinate(radius));
    if (pair.has_hollow)  // a ring on top shows even where both are one
      put(out, R"(<circle class="before" cx="{}" cy="{}" r="{}"/>)", x,
          coordinate(y_of(pair.hollow)), coordinate(radius * 0.9));
    const double width = std::min(step(), 30.0);
    put(out, R"(<rect class="hit" x="{}" y="{}" width="{}" height="{}" data-tip="{}"/>)",
        coordinate(x_(pair.x) - width / 2), coordinate(kTop), coordinate(width),
        coordinate(kBottom - kTop), pair.tip);
  }

  const Panel& panel_;
  const Range& range_;
  const Scale y_, x_;
};

// Modules of one role and layer, merged (unstacked experts).
struct Merged {
  numerics::ErrorStats after, before;
  bool has_before = true;
  const ModuleView* first = nullptr;
  size_t modules = 0;
};

Pair error_pair(const Merged& merged, double x, const std::string& uniform) {
  Pair pair;
  pair.x = x;
  pair.solid = sqnr_db(merged.after);
  pair.has_hollow = merged.has_before;
  pair.tip =
      merged.modules == 1 ? escape(merged.first->name) : fmt::format("{} modules", merged.modules);
  if (merged.modules == 1) pair.tip += "&#10;" + escape(merged.first->format);
  put(pair.tip, " · {}", db_text(pair.solid));
  if (merged.has_before) {
    pair.hollow = sqnr_db(merged.before);
    put(pair.tip, "&#10;uniform {} · {}", escape(uniform), db_text(pair.hollow));
  }
  return pair;
}

std::string draw_all(const std::vector<Panel>& panels) {
  const Range range = range_of(panels);
  std::string out = R"(<div class="panels">)";
  for (const Panel& panel : panels) out += PanelDrawing(panel, range).draw();
  return out + "</div>";
}

int layers_of(const ModuleViews& views) {
  int layers = 0;
  for (const ModuleView& module : views.modules) layers = std::max(layers, module.layer + 1);
  return layers;
}

Panel outside_panel(const ModuleViews& views) {
  Panel panel;
  panel.title = "outside layers";
  for (const ModuleView& module : views.modules) {
    if (!module.quantizable || module.layer >= 0) continue;
    const Merged merged{module.after, module.before.value_or(numerics::ErrorStats{}),
                        module.before.has_value(), &module, 1};
    panel.pairs.push_back(
        error_pair(merged, static_cast<double>(panel.names.size()), views.uniform));
    panel.names.push_back(module.role);
  }
  return panel;
}

Panel role_panel(const ModuleViews& views, const std::string& role, int layers) {
  std::map<int, Merged> by_layer;
  for (const ModuleView& module : views.modules) {
    if (!module.quantizable || module.layer < 0 || module.role != role) continue;
    Merged& merged = by_layer[module.layer];
    merged.after.merge(module.after);
    if (module.before) merged.before.merge(*module.before);
    merged.has_before = merged.has_before && module.before.has_value();
    if (merged.modules++ == 0) merged.first = &module;
  }
  Panel panel;
  panel.title = role;
  panel.columns = layers;
  for (const auto& [layer, merged] : by_layer)
    panel.pairs.push_back(error_pair(merged, layer, views.uniform));
  return panel;
}

}  // namespace

std::string error_panels(const ModuleViews& views) {
  std::vector<Panel> panels;
  const int layers = layers_of(views);
  for (const std::string& role : roles_of(views.modules)) {
    Panel panel = role_panel(views, role, layers);
    if (!panel.pairs.empty()) panels.push_back(std::move(panel));
  }
  if (Panel outside = outside_panel(views); !outside.pairs.empty())
    panels.push_back(std::move(outside));
  return panels.empty() ? std::string() : draw_all(panels);
}

std::string expert_panels(const ModuleViews& views) {
  std::vector<Panel> panels;
  const int layers = layers_of(views);
  for (const std::string& role : roles_of(views.modules)) {
    Panel panel;
    panel.title = role;
    panel.columns = layers;
    for (const ModuleView& module : views.modules) {
      if (module.role != role || !module.has_experts || module.layer < 0) continue;
      Pair pair{static_cast<double>(module.layer), module.db(), module.worst_expert_db, true, {}};
      pair.tip = fmt::format("{}&#10;{} · {}&#10;expert {} · {}", escape(module.name),
                             escape(module.format), db_text(pair.solid), module.worst_expert,
                             db_text(pair.hollow));
      panel.pairs.push_back(std::move(pair));
    }
    if (!panel.pairs.empty()) panels.push_back(std::move(panel));
  }
  return panels.empty() ? std::string() : draw_all(panels);
}

}  // namespace sluice::report
