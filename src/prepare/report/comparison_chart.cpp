#include "report/comparison_chart.h"

#include <algorithm>
#include <cmath>

#include "base/units.h"
#include "report/axes.h"
#include "report/html.h"
#include "report/labels.h"
#include "report/scale.h"

namespace sluice::report {
namespace {

constexpr double kDotRadius = 4.5;
constexpr double kMargin = 0.05;  // of an axis' span, on either side
// The lower end of an interval may be 0 or below; it is drawn to no less than this share of the
// mean.
constexpr double kLowestShare = 0.1;
// Times the reference's perplexity, beyond which the axis of perplexities is logarithmic.
constexpr double kSpreadLinear = 3;

struct Point {
  double bytes = 0;
  bool exact = false;                  // no divergence: at the axis' foot
  double mean = 0, low = 0, high = 0;  // on the axis: log10 of a divergence
  const ComparedOutput* output = nullptr;
};

const Interval& interval_of(const ComparedOutput& output, ComparedFigure figure) {
  return figure == ComparedFigure::kPerplexity ? output.perplexity : output.kl;
}

// Divergence spans decades; perplexity does where some output is broken.
bool is_logarithmic(const ComparisonInput& input, ComparedFigure figure) {
  return figure == ComparedFigure::kDivergence ||
         std::ranges::any_of(input.outputs, [&](const ComparedOutput& output) {
           return output.perplexity.mean > kSpreadLinear * input.reference_perplexity.mean;
         });
}

Point point_of(const ComparedOutput& output, const Interval& found, bool logarithmic) {
  Point point{static_cast<double>(output.bytes), false, found.mean, found.low, found.high, &output};
  if (!logarithmic) return point;
  point.exact = found.mean <= 0;
  point.mean = std::log10(found.mean);
  point.low = std::log10(std::max(found.low, kLowestShare * found.mean));
  point.high = std::log10(std::max(found.high, found.mean));
  return point;
}

struct Range {
  double low = INFINITY, high = -INFINITY;
  void include(double value) {
    low = std::min(low, value);
    high = std::max(high, value);
  }
  // least: of the span, so that one point has an axis too.
  Range widened(double least) const {
    if (!(high >= low)) return {0, 1};
    const double span = std::max(high - low, least);
    return {low - kMargin * span, high + kMargin * span};
  }
};

std::string tip_of(const ComparedOutput& output) {
  return escape(output.name) + "&#10;" +
         escape(fmt::format("{} · {:.3f} bits per weight", bytes_text(output.bytes),
                            output.bits_per_weight)) +
         "&#10;" +
         escape(fmt::format("divergence {:.4g} ({:.4g} to {:.4g})", output.kl.mean, output.kl.low,
                            output.kl.high)) +
         "&#10;" +
         escape(fmt::format("perplexity {:.4f} ({:.4f} to {:.4f})", output.perplexity.mean,
                            output.perplexity.low, output.perplexity.high));
}

class ComparisonDrawing {
 public:
  ComparisonDrawing(const ComparisonInput& input, ComparedFigure figure, int width, int height)
      : input_(input),
        figure_(figure),
        width_(width),
        height_(height),
        area_(chart_area(width, height)),
        logarithmic_(is_logarithmic(input, figure)),
        labels_(area_) {
    for (const ComparedOutput& output : input.outputs)
      points_.push_back(point_of(output, interval_of(output, figure), logarithmic_));
    set_scales();
  }

  std::string draw() {
    draw_frame();
    if (figure_ == ComparedFigure::kPerplexity) draw_reference();
    for (const Point& point : points_) labels_.keep_clear(x_of(point), y_of(point), kDotRadius + 1);
    for (const Point& point : points_) draw_point(point);
    for (const Point& point : points_)
      labels_.add(svg_, x_of(point), y_of(point), point.output->name, "tick");
    return std::move(svg_);
  }

 private:
  double x_of(const Point& point) const { return x_(point.bytes); }
  double y_of(const Point& point) const { return point.exact ? area_.bottom : y_(point.mean); }

  double reference() const {
    const double mean = input_.reference_perplexity.mean;
    return logarithmic_ ? std::log10(mean) : mean;
  }

  void set_scales() {
    Range bytes, values;
    for (const Point& point : points_) {
      bytes.include(point.bytes);
      if (point.exact) continue;
      values.include(point.low);
      values.include(point.high);
    }
    if (figure_ == ComparedFigure::kPerplexity) values.include(reference());
    const Range wide = bytes.widened(bytes.high * 0.1);
    const Range tall = values.widened(logarithmic_ ? 0.5 : 0.01);
    x_ = {std::max(0.0, wide.low), wide.high, area_.left, area_.right};
    y_ = {tall.low, tall.high, area_.bottom, area_.top};
  }

  std::vector<Tick> value_ticks() const {
    if (logarithmic_) return log_ticks(y_.low, y_.high);
    std::vector<Tick> ticks;
    for (const double value : round_steps(y_.low, y_.high, 6))
      ticks.push_back({value, fmt::format("{:g}", value)});
    return ticks;
  }

  void draw_frame() {
    draw_axes(
        svg_, width_, height_, x_, y_, value_ticks(),
        figure_ == ComparedFigure::kPerplexity ? "perplexity" : "KL divergence, nats per token");
  }

  void draw_reference() {
    const std::string y = coordinate(y_(reference()));
    put(svg_, R"(<line class="grid exact" x1="{}" x2="{}" y1="{}" y2="{}"/>)",
        coordinate(area_.left), coordinate(area_.right), y, y);
  }

  void draw_point(const Point& point) {
    const std::string x = coordinate(x_of(point));
    if (!point.exact)
      put(svg_, R"(<line class="stem" x1="{0}" x2="{0}" y1="{1}" y2="{2}"/>)", x,
          coordinate(y_(point.low)), coordinate(y_(point.high)));
    put(svg_, R"(<circle class="after" cx="{}" cy="{}" r="{}" data-tip="{}"/>)", x,
        coordinate(y_of(point)), coordinate(kDotRadius), tip_of(*point.output));
  }

  const ComparisonInput& input_;
  const ComparedFigure figure_;
  const int width_, height_;
  const Box area_;
  const bool logarithmic_;
  Labels labels_;
  std::vector<Point> points_;
  Scale x_, y_;
  std::string svg_;
};

}  // namespace

std::string comparison_drawing(const ComparisonInput& input, ComparedFigure figure, int width,
                               int height) {
  return ComparisonDrawing(input, figure, width, height).draw();
}

}  // namespace sluice::report
