// Names beside the points of a drawing, where they cover nothing. Private to report.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace sluice::report {

struct Box {
  double left, top, right, bottom;
  bool meets(const Box& other) const {
    return left < other.right && other.left < right && top < other.bottom && other.top < bottom;
  }
};

// Places labels beside their points where they cover nothing placed before.
class Labels {
 public:
  explicit Labels(const Box& area) : area_(area) {}
  void keep_clear(double x, double y, double radius);
  // Draws nothing when no place is free. text is escaped here.
  void add(std::string& svg, double x, double y, const std::string& text, std::string_view css);

 private:
  Box area_;
  std::vector<Box> taken_;
};

}  // namespace sluice::report
