#include "report/axes.h"

#include "report/html.h"

namespace sluice::report {

void draw_axes(std::string& svg, int width, int height, const Scale& x, const Scale& y,
               const std::vector<Tick>& values, std::string_view name) {
  const Box area = chart_area(width, height);
  for (const Tick& tick : values) {
    const std::string at = coordinate(y(tick.value));
    put(svg, R"(<line class="grid" x1="{}" x2="{}" y1="{}" y2="{}"/>)", coordinate(area.left),
        coordinate(area.right), at, at);
    put(svg, R"(<text class="tick" x="{}" y="{}" text-anchor="end">{}</text>)",
        coordinate(area.left - 8), coordinate(y(tick.value) + 4), tick.label);
  }
  for (const Tick& tick : byte_ticks(x.low, x.high, width < 600 ? 4 : 8)) {
    put(svg, R"(<line class="axis" x1="{0}" x2="{0}" y1="{1}" y2="{2}"/>)",
        coordinate(x(tick.value)), coordinate(area.bottom), coordinate(area.bottom + 5));
    put(svg, R"(<text class="tick" x="{}" y="{}" text-anchor="middle">{}</text>)",
        coordinate(x(tick.value)), coordinate(area.bottom + 19), tick.label);
  }
  put(svg, R"(<line class="axis" x1="{0}" x2="{1}" y1="{2}" y2="{2}"/>)", coordinate(area.left),
      coordinate(area.right), coordinate(area.bottom));
  put(svg, R"(<text class="name" x="{}" y="{}" text-anchor="middle">bytes of weight files</text>)",
      coordinate((area.left + area.right) / 2), height - 6);
  put(svg,
      R"-(<text class="name" transform="translate(13 {}) rotate(-90)" text-anchor="middle">{}</text>)-",
      coordinate((area.top + area.bottom) / 2), escape(name));
}

}  // namespace sluice::report
