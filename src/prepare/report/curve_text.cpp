// The curve in characters: braille dots, two by four to a cell.
#include <algorithm>
#include <cmath>
#include <utility>

#include "report/curve_chart.h"
#include "report/scale.h"

namespace sluice::report {
namespace {

// One character of UTF-8 from U+0800 to U+FFFF.
std::string character(uint32_t code) {
  return {static_cast<char>(0xe0 | code >> 12), static_cast<char>(0x80 | (code >> 6 & 0x3f)),
          static_cast<char>(0x80 | (code & 0x3f))};
}

// Characters that each hold 2 × 4 braille dots, or one mark that covers them.
class Canvas {
 public:
  Canvas(size_t columns, size_t rows) : columns_(columns), rows_(rows), cells_(columns * rows) {}

  double dots_wide() const { return static_cast<double>(2 * columns_ - 1); }
  double dots_high() const { return static_cast<double>(4 * rows_ - 1); }

  void dot(double x, double y) {
    const auto [column, row] = cell_of(x, y);
    // U+2800 counts its dots down the left column, then the right, then the bottom row.
    constexpr uint8_t kBits[4][2] = {{0x01, 0x08}, {0x02, 0x10}, {0x04, 0x20}, {0x40, 0x80}};
    cells_[row * columns_ + column].dots |=
        kBits[static_cast<size_t>(std::lround(y)) % 4][static_cast<size_t>(std::lround(x)) % 2];
  }
  void line(double x0, double y0, double x1, double y1) {
    const double steps = std::max({std::abs(x1 - x0), std::abs(y1 - y0), 1.0});
    for (double step = 0; step <= steps; ++step)
      dot(x0 + (x1 - x0) * step / steps, y0 + (y1 - y0) * step / steps);
  }
  void mark(double x, double y, uint32_t code) {
    const auto [column, row] = cell_of(x, y);
    cells_[row * columns_ + column].mark = code;
  }
  std::string row_text(size_t row) const {
    std::string text;
    for (size_t column = 0; column < columns_; ++column) {
      const Cell& cell = cells_[row * columns_ + column];
      text += cell.mark != 0   ? character(cell.mark)
              : cell.dots != 0 ? character(0x2800 + cell.dots)
                               : " ";
    }
    text.erase(text.find_last_not_of(' ') + 1);
    return text;
  }

 private:
  struct Cell {
    uint8_t dots = 0;
    uint32_t mark = 0;
  };
  std::pair<size_t, size_t> cell_of(double x, double y) const {
    return {std::min(static_cast<size_t>(std::lround(std::max(x, 0.0))) / 2, columns_ - 1),
            std::min(static_cast<size_t>(std::lround(std::max(y, 0.0))) / 4, rows_ - 1)};
  }

  size_t columns_, rows_;
  std::vector<Cell> cells_;
};

constexpr uint32_t kRing = 0x25cb, kDisc = 0x25cf;
constexpr size_t kMargin = 8;  // characters before the axis

size_t characters(const std::string& utf8) {
  return static_cast<size_t>(
      std::ranges::count_if(utf8, [](char c) { return (c & 0xc0) != 0x80; }));
}

std::string pad_left(const std::string& text, size_t width) {
  const size_t have = characters(text);
  return std::string(width > have ? width - have : 0, ' ') + text;
}

// Labels under their places on the axis, left out where they would touch.
std::string axis_text(const CurveDots& dots, const Scale& x, size_t columns) {
  std::string line;
  for (const Tick& tick : byte_ticks(dots.bytes_low, dots.bytes_high, 6)) {
    const auto at = static_cast<size_t>(std::lround(x(tick.value) / 2)) + kMargin + 1;
    const size_t half = tick.label.size() / 2;
    if (at < half + line.size() + (line.empty() ? 0 : 2)) continue;
    if (at - half + tick.label.size() > columns) break;
    line.resize(at - half, ' ');
    line += tick.label;
  }
  return line;
}

}  // namespace

std::string curve_text(const ReportInput& input, size_t columns, size_t rows) {
  const CurveDots dots = curve_dots(input);
  if (dots.empty() || columns < kMargin + 20 || rows < 8) return {};
  Canvas canvas(columns - kMargin - 1, rows - 2);
  const Scale x{dots.bytes_low, dots.bytes_high, 0, canvas.dots_wide()};
  const Scale y{dots.log_low, dots.log_high, canvas.dots_high(), 0};
  const auto y_of = [&](const CurveDots::Dot& dot) {
    return dot.cost > 0 ? y(std::log10(dot.cost)) : canvas.dots_high();
  };
  for (size_t i = 0; i + 1 < dots.curve.size(); ++i)
    canvas.line(x(dots.curve[i].bytes), y_of(dots.curve[i]), x(dots.curve[i + 1].bytes),
                y_of(dots.curve[i + 1]));
  for (const CurveDots::Dot& dot : dots.uniform)
    if (dot.parity) canvas.mark(x(dot.bytes), y_of(dot), kRing);
  if (dots.has_chosen) canvas.mark(x(dots.chosen.bytes), y_of(dots.chosen), kDisc);

  std::vector<std::string> labels(rows - 2);
  for (const Tick& tick : log_ticks(dots.log_low, dots.log_high))
    labels[std::min(static_cast<size_t>(std::lround(y(tick.value))) / 4, rows - 3)] = tick.label;
  std::string text;
  for (size_t row = 0; row + 2 < rows; ++row)
    text += pad_left(labels[row], kMargin - 1) + (labels[row].empty() ? " │" : " ┤") +
            canvas.row_text(row) + "\n";
  text += std::string(kMargin, ' ') + "└";
  for (size_t column = 0; column + kMargin + 1 < columns; ++column) text += "─";
  return text + "\n" + axis_text(dots, x, columns) + "\n";
}

}  // namespace sluice::report
