#include "report/heat_map.h"

#include <algorithm>
#include <cmath>
#include <map>

#include "base/units.h"
#include "report/html.h"

namespace sluice::report {
namespace {

// Between the effective widths that formats have: 2.25 and 2.5, 3 and 3.25, 3.5 and 4, 4.25 and
// 4.5, 5 and 5.25, 5.5 and 6, 6.25 to 7, 8.25 to 9, 16.
constexpr double kBitsSteps[] = {2.75, 3.375, 4.125, 4.75, 5.375, 6.125, 7.5, 12};
constexpr std::string_view kBitsNames[] = {"≤ 2.5", "3",   "3.5", "4.5", "5",
                                           "5.5",   "6.5", "8.5", "16"};
// 6 dB is one bit.
constexpr double kDbSteps[] = {10, 14, 18, 22, 26, 32, 40, 60};
constexpr std::string_view kDbNames[] = {"< 10", "10", "14", "18", "22", "26", "32", "40", "≥ 60"};
constexpr size_t kNumberedLayersMax = 40;  // beyond, numbers do not fit into cells

template <size_t kCount>
int level_of(double value, const double (&steps)[kCount]) {
  return static_cast<int>(std::upper_bound(steps, steps + kCount, value) - steps);
}

// All modules of one role in one layer.
struct Cell {
  uint64_t elements = 0, bytes = 0, modules = 0;
  numerics::ErrorStats error;
  const ModuleView* only = nullptr;

  void add(const ModuleView& module) {
    elements += module.elements;
    bytes += module.bytes;
    error.merge(module.after);
    only = modules++ == 0 ? &module : nullptr;
  }
  double bits() const {
    return elements == 0 ? 0 : 8 * static_cast<double>(bytes) / static_cast<double>(elements);
  }
};

std::string tip_of(const Cell& cell) {
  std::string tip =
      cell.only != nullptr ? escape(cell.only->name) : fmt::format("{} modules", cell.modules);
  tip += "&#10;";
  if (cell.only != nullptr) tip += escape(cell.only->format) + " · ";
  put(tip, "{:.3f} bits per weight&#10;SQNR {} · {}", cell.bits(), db_text(sqnr_db(cell.error)),
      bytes_text(cell.bytes));
  return tip;
}

std::string bits_number(double bits) {
  return bits >= 9.95 ? fmt::format("{:.0f}", bits) : fmt::format("{:.1f}", bits);
}

std::string db_number(double db) { return std::isinf(db) ? "∞" : fmt::format("{:.0f}", db); }

void put_cell(std::string& out, std::string_view element, const Cell& cell) {
  const double db = sqnr_db(cell.error);
  put(out, R"(<{0} class="cell b{1} q{2}" data-tip="{3}"><b>{4}</b><i>{5}</i></{0}>)", element,
      bits_level(cell.bits()), db_level(db), tip_of(cell), bits_number(cell.bits()), db_number(db));
}

struct Grid {
  int layers = 0;
  std::vector<std::string> roles;
  std::map<std::pair<std::string, int>, Cell> cells;
  std::vector<const ModuleView*> outside;  // quantizable and in no layer
  Cell others;                             // not quantizable, wherever
};

Grid grid_of(const ModuleViews& views) {
  Grid grid;
  for (const ModuleView& module : views.modules) {
    grid.layers = std::max(grid.layers, module.layer + 1);
    if (!module.quantizable) {
      grid.others.add(module);
    } else if (module.layer < 0) {
      grid.outside.push_back(&module);
    } else {
      grid.cells[{module.role, module.layer}].add(module);
    }
  }
  for (const std::string& role : roles_of(views.modules))
    if (std::ranges::any_of(grid.cells, [&](const auto& e) { return e.first.first == role; }))
      grid.roles.push_back(role);
  return grid;
}

std::string layer_grid(const Grid& grid) {
  std::string out;
  const bool numbered = static_cast<size_t>(grid.layers) <= kNumberedLayersMax;
  put(out, R"(<div class="scroll"><table class="heat{}"><thead><tr><th scope="col">layer</th>)",
      numbered ? "" : " dense");
  const int step = numbered ? 1 : 10;
  for (int layer = 0; layer < grid.layers; layer += step)
    put(out, R"(<th scope="col" colspan="{}">{}</th>)", std::min(step, grid.layers - layer), layer);
  out += "</tr></thead><tbody>";
  for (const std::string& role : grid.roles) {
    put(out, R"(<tr><th scope="row">{}</th>)", escape(role));
    for (int layer = 0; layer < grid.layers; ++layer) {
      const auto found = grid.cells.find({role, layer});
      if (found == grid.cells.end())
        out += "<td></td>";
      else
        put_cell(out, "td", found->second);
    }
    out += "</tr>";
  }
  return out + "</tbody></table></div>";
}

void put_outside(std::string& out, const Cell& cell, const std::string& name) {
  put_cell(out, "span", cell);
  put(out, "<span>{}</span>", name);
}

std::string outside_line(const Grid& grid) {
  std::string out = R"(<p class="outside"><span>outside layers</span>)";
  for (const ModuleView* module : grid.outside) {
    Cell cell;
    cell.add(*module);
    put_outside(out, cell, escape(module->role));
  }
  if (grid.others.modules > 0)
    put_outside(out, grid.others,
                fmt::format("{} norms, biases and other parameters that are never quantized",
                            grid.others.modules));
  return out + "</p>";
}

std::string legend(std::string_view css, std::string_view prefix, std::string_view unit,
                   const std::string_view (&names)[9]) {
  std::string out = fmt::format(R"(<p class="legend {}"><span>{}</span>)", css, unit);
  for (size_t i = 0; i < std::size(names); ++i)
    put(out, R"(<span class="{}{} swatch">{}</span>)", prefix, i, names[i]);
  return out + "</p>";
}

}  // namespace

int bits_level(double bits) { return level_of(bits, kBitsSteps); }

int db_level(double db) { return level_of(db, kDbSteps); }

std::string heat_map(const ModuleViews& views) {
  const Grid grid = grid_of(views);
  std::string out = R"(<div class="map" data-show="bits">)";
  out +=
      R"(<p class="toggle" hidden><button type="button" data-show="bits" aria-pressed="true">bits per weight</button><button type="button" data-show="db" aria-pressed="false">SQNR in dB</button></p>)";
  if (!grid.roles.empty()) out += layer_grid(grid);
  if (!grid.outside.empty() || grid.others.modules > 0) out += outside_line(grid);
  out += legend("for-bits", "b", "bits per weight, scales included", kBitsNames);
  out += legend("for-db", "q", "SQNR in dB, from", kDbNames);
  return out + "</div>";
}

}  // namespace sluice::report
