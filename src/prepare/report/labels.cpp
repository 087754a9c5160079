#include "report/labels.h"

#include <algorithm>

#include "report/html.h"

namespace sluice::report {
namespace {

constexpr double kLabelHeight = 14, kLabelCharacter = 6.6;

}  // namespace

void Labels::keep_clear(double x, double y, double radius) {
  taken_.push_back({x - radius, y - radius, x + radius, y + radius});
}

void Labels::add(std::string& svg, double x, double y, const std::string& text,
                 std::string_view css) {
  const double width = kLabelCharacter * static_cast<double>(text.size());
  struct Place {
    double dx, dy;
    std::string_view anchor;
  };
  constexpr Place kPlaces[] = {{8, -5, "start"}, {8, 13, "start"}, {-8, -5, "end"},
                               {-8, 13, "end"},  {8, 4, "start"},  {-8, 4, "end"}};
  for (const Place& place : kPlaces) {
    const double left = place.anchor == "start" ? x + place.dx : x + place.dx - width;
    const Box box{left, y + place.dy - kLabelHeight + 3, left + width, y + place.dy + 3};
    if (box.left < area_.left || box.right > area_.right || box.top < area_.top ||
        box.bottom > area_.bottom ||
        std::ranges::any_of(taken_, [&](const Box& other) { return box.meets(other); }))
      continue;
    taken_.push_back(box);
    put(svg, R"(<text x="{}" y="{}" text-anchor="{}" class="{}">{}</text>)",
        coordinate(x + place.dx), coordinate(y + place.dy), place.anchor, css, escape(text));
    return;
  }
}

}  // namespace sluice::report
