#include "report/curve_chart.h"

#include <algorithm>
#include <cmath>

#include "base/units.h"
#include "report/axes.h"
#include "report/data/embedded.h"
#include "report/html.h"
#include "report/labels.h"
#include "report/scale.h"

namespace sluice::report {
namespace {

using Dot = CurveDots::Dot;

constexpr int kDocumentWidth = 900, kDocumentHeight = 440;

std::string tip_of(const Dot& dot, std::string_view what) {
  return escape(what) + "&#10;" +
         escape(fmt::format("{} · error {:.4g}", bytes_text(static_cast<uint64_t>(dot.bytes)),
                            dot.cost));
}

class CurveDrawing {
 public:
  CurveDrawing(const CurveDots& dots, int width, int height)
      : dots_(dots),
        width_(width),
        height_(height),
        area_(chart_area(width, height)),
        x_{dots.bytes_low, dots.bytes_high, area_.left, area_.right},
        y_{dots.log_low, dots.log_high, area_.bottom, area_.top},
        labels_(area_) {}

  // What stands inside <svg>.
  std::string draw() {
    draw_axes(svg_, width_, height_, x_, y_, log_ticks(dots_.log_low, dots_.log_high),
              "weighted error");
    draw_curve();
    reserve_dots();
    draw_chosen();
    draw_uniform();
    return std::move(svg_);
  }

 private:
  double y_of(const Dot& dot) const {
    return dot.cost > 0 ? y_(std::log10(dot.cost)) : area_.bottom;
  }

  void draw_curve() {
    if (dots_.curve.empty()) return;
    svg_ += R"(<polyline class="curve" points=")";
    for (const Dot& dot : dots_.curve)
      put(svg_, "{},{} ", coordinate(x_(dot.bytes)), coordinate(y_of(dot)));
    if (dots_.exact_bytes > 0)
      put(svg_, "{},{} ", coordinate(x_(dots_.exact_bytes)), coordinate(area_.bottom));
    svg_.back() = '"';
    svg_ += "/>";
    for (const Dot& dot : dots_.curve)
      put(svg_, R"(<circle class="hit" cx="{}" cy="{}" r="7" data-tip="{}"/>)",
          coordinate(x_(dot.bytes)), coordinate(y_of(dot)), tip_of(dot, dot.label));
  }

  void reserve_dots() {
    for (const Dot& dot : dots_.uniform) labels_.keep_clear(x_(dot.bytes), y_of(dot), 5);
    for (size_t i = 0; i + 1 < dots_.curve.size(); ++i) {
      const double x0 = x_(dots_.curve[i].bytes), x1 = x_(dots_.curve[i + 1].bytes);
      const double y0 = y_of(dots_.curve[i]), y1 = y_of(dots_.curve[i + 1]);
      for (int part = 0; part < 8; ++part)  // the line itself, piece by piece
        labels_.keep_clear(x0 + (x1 - x0) * part / 8, y0 + (y1 - y0) * part / 8, 2);
    }
  }

  void draw_chosen() {
    if (!dots_.has_chosen) return;
    const double x = x_(dots_.chosen.bytes), y = y_of(dots_.chosen);
    labels_.keep_clear(x, y, 8);
    put(svg_, R"(<line class="drop" x1="{0}" x2="{0}" y1="{1}" y2="{2}"/>)", coordinate(x),
        coordinate(y), coordinate(area_.bottom));
    put(svg_, R"(<circle class="chosen" cx="{}" cy="{}" r="7" data-tip="{}"/>)", coordinate(x),
        coordinate(y), tip_of(dots_.chosen, dots_.chosen.label));
    labels_.add(svg_, x + 4, y - 4, "this model", "chosen-label");
  }

  void draw_uniform() {
    for (const Dot& dot : dots_.uniform) {
      put(svg_, R"(<circle class="{}" cx="{}" cy="{}" r="{}" data-tip="{}"/>)",
          dot.parity ? "uniform" : "uniform best", coordinate(x_(dot.bytes)), coordinate(y_of(dot)),
          dot.parity ? "4.5" : "3.5", tip_of(dot, "uniform " + dot.label));
    }
    for (const Dot& dot : dots_.uniform)
      if (dot.parity) labels_.add(svg_, x_(dot.bytes), y_of(dot), dot.label, "uniform-label");
  }

  const CurveDots& dots_;
  const int width_, height_;
  const Box area_;
  const Scale x_, y_;
  Labels labels_;
  std::string svg_;
};

Dot dot_of(const allocate::UniformPlan& plan) {
  const bool parity = plan.encoder == numerics::Encoder::kParity;
  return {static_cast<double>(plan.exact_bytes), plan.cost,
          parity ? numerics::format_text(plan.format)
                 : fmt::format("{} {}", numerics::format_text(plan.format),
                               numerics::encoder_name(plan.encoder)),
          parity};
}

void set_axes(CurveDots& dots) {
  double bytes_low = INFINITY, bytes_high = 0, cost_low = INFINITY, cost_high = 0;
  const auto count = [&](const Dot& dot) {
    bytes_low = std::min(bytes_low, dot.bytes);
    bytes_high = std::max(bytes_high, dot.bytes);
    if (dot.cost <= 0) return;
    cost_low = std::min(cost_low, dot.cost);
    cost_high = std::max(cost_high, dot.cost);
  };
  std::ranges::for_each(dots.curve, count);
  std::ranges::for_each(dots.uniform, count);
  if (dots.has_chosen) count(dots.chosen);
  if (dots.exact_bytes > 0) bytes_high = std::max(bytes_high, dots.exact_bytes);
  const double span = std::max(bytes_high - bytes_low, bytes_high * 0.01);
  dots.bytes_low = std::max(0.0, bytes_low - span * 0.04);
  dots.bytes_high = bytes_high + span * 0.04;
  dots.log_low = std::log10(cost_low) - 0.12;
  dots.log_high = std::log10(cost_high) + 0.12;
}

}  // namespace

CurveDots curve_dots(const ReportInput& input) {
  CurveDots dots;
  // Points of the curve count tensors alone; headers differ by little from plan to plan.
  double headers = 0;
  if (input.plan) {
    const allocate::PlanData& plan = input.plan->data();
    headers = static_cast<double>(plan.exact_bytes - plan.tensor_bytes);
    dots.has_chosen = true;
    dots.chosen = {static_cast<double>(plan.exact_bytes), plan.cost, "this model", true};
  }
  for (const allocate::CurvePoint& point : input.curve) {
    const double bytes = static_cast<double>(point.bytes) + headers;
    if (point.cost > 0)
      dots.curve.push_back({bytes, point.cost,
                            fmt::format("best mix, {:.3f} bits per weight", point.bits_per_weight),
                            true});
    else if (dots.exact_bytes == 0)
      dots.exact_bytes = bytes;
  }
  for (const allocate::UniformPlan& plan : input.uniform)
    if (plan.cost > 0) dots.uniform.push_back(dot_of(plan));
  std::ranges::sort(dots.uniform, {}, &Dot::bytes);
  if (!dots.empty()) set_axes(dots);
  return dots;
}

std::string curve_svg(const ReportInput& input, int width, int height) {
  const CurveDots dots = curve_dots(input);
  if (dots.empty()) return {};
  return fmt::format(
      R"(<svg class="chart" viewBox="0 0 {} {}" role="img" aria-label="Weighted error against bytes of weights">{}</svg>)",
      width, height, CurveDrawing(dots, width, height).draw());
}

std::string curve_document(const ReportInput& input) {
  const CurveDots dots = curve_dots(input);
  std::string title = escape(input.name.empty() ? "Error against size" : input.name);
  const std::string drawing =
      dots.empty() ? std::string() : CurveDrawing(dots, kDocumentWidth, kDocumentHeight).draw();
  return fmt::format(
      R"(<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 -44 {} {}" class="chart"><title>{}</title><style>{}</style><rect x="0" y="-44" width="{}" height="{}" class="paper"/><text x="16" y="-16" class="title">{}</text>{}</svg>)"
      "\n",
      kDocumentWidth, kDocumentHeight + 44, title, embedded_chart_css(), kDocumentWidth,
      kDocumentHeight + 44, title, drawing);
}

}  // namespace sluice::report
