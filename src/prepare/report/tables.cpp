#include "report/tables.h"

#include <algorithm>
#include <cmath>
#include <map>

#include "base/units.h"
#include "report/heat_map.h"
#include "report/html.h"

namespace sluice::report {
namespace {

constexpr size_t kWeakestRows = 12;
constexpr size_t kExpertRows = 12;
constexpr size_t kModuleRowsMax = 1000;

// Quantizable modules, least SQNR first, then in module order.
std::vector<const ModuleView*> by_db(const ModuleViews& views) {
  std::vector<const ModuleView*> sorted;
  for (const ModuleView& module : views.modules)
    if (module.quantizable) sorted.push_back(&module);
  std::ranges::stable_sort(sorted, {}, &ModuleView::db);
  return sorted;
}

// A number that also sorts: exact encodings after all others.
std::string db_cell(double db) {
  return fmt::format(R"(<td class="n" data-v="{:.4f}">{}</td>)", std::isinf(db) ? 1e9 : db,
                     db_text(db));
}

// One bar for after, and a tick where before was; both from 0 to high.
std::string db_bar(double after, const std::optional<double>& before, double high) {
  const auto share = [&](double db) {
    return coordinate(100 * std::clamp(std::isinf(db) ? 1.0 : db / high, 0.0, 1.0));
  };
  std::string out = fmt::format(
      R"(<td class="bar"><span class="track"><span style="width:{}%"></span>)", share(after));
  if (before) put(out, R"(<em style="left:{}%"></em>)", share(*before));
  return out + "</span></td>";
}

double highest_db(const std::vector<const ModuleView*>& modules) {
  double high = 1;
  for (const ModuleView* module : modules) {
    if (std::isfinite(module->db())) high = std::max(high, module->db());
    if (module->before && std::isfinite(module->db_before()))
      high = std::max(high, module->db_before());
  }
  return high;
}

std::string module_head(const ModuleViews& views, bool sortable) {
  const auto head = [&](std::string_view name, bool number) {
    return fmt::format(
        R"(<th scope="col"{}>{}</th>)", number ? R"( class="n")" : "",
        sortable ? fmt::format(R"(<button type="button">{}</button>)", name) : std::string(name));
  };
  std::string out = "<thead><tr>" + head("module", false) + head("format", false) +
                    head("bits", true) + head("bytes", true) + head("SQNR", true);
  if (!views.uniform.empty()) out += head("uniform " + escape(views.uniform), true);
  out += R"(<th scope="col" class="bar"></th>)";
  if (views.priced) out += head("share of error", true);
  return out + "</tr></thead>";
}

std::string module_row(const ModuleViews& views, const ModuleView& module, double high) {
  std::string out = fmt::format(
      R"(<tr><td>{}</td><td>{}</td><td class="n" data-v="{:.4f}">{:.2f}</td><td class="n" data-v="{}">{}</td>)",
      name_html(module.name), escape(module.format), module.bits(), module.bits(), module.bytes,
      bytes_text(module.bytes));
  out += db_cell(module.db());
  std::optional<double> before;
  if (module.before) before = module.db_before();
  if (!views.uniform.empty()) out += before ? db_cell(*before) : "<td></td>";
  out += db_bar(module.db(), before, high);
  if (views.priced)
    put(out, R"(<td class="n" data-v="{:.6f}">{}</td>)", module.share,
        percent_text(module.share, 1));
  return out + "</tr>";
}

std::string module_table(const ModuleViews& views, const std::vector<const ModuleView*>& modules,
                         bool sortable) {
  std::string out =
      fmt::format(R"(<div class="scroll"><table class="list{}">)", sortable ? " sortable" : "");
  out += module_head(views, sortable) + "<tbody>";
  const double high = highest_db(modules);
  for (const ModuleView* module : modules) out += module_row(views, *module, high);
  return out + "</tbody></table></div>";
}

struct Share {
  size_t modules = 0;
  uint64_t elements = 0, bytes = 0;
  double bits() const {
    return elements == 0 ? 0 : 8 * static_cast<double>(bytes) / static_cast<double>(elements);
  }
};

// By format, most weights first.
std::vector<std::pair<std::string, Share>> format_shares(const ModuleViews& views) {
  std::map<std::string, Share> shares;
  for (const ModuleView& module : views.modules) {
    Share& share = shares[module.quantizable ? module.format : "never quantized"];
    ++share.modules;
    share.elements += module.elements;
    share.bytes += module.bytes;
  }
  std::vector<std::pair<std::string, Share>> sorted(shares.begin(), shares.end());
  std::ranges::stable_sort(sorted, std::ranges::greater(),
                           [](const auto& entry) { return entry.second.bytes; });
  return sorted;
}

}  // namespace

std::string format_shares_table(const ModuleViews& views) {
  const auto shares = format_shares(views);
  double bytes = 0, elements = 0;
  for (const auto& [name, share] : shares) {
    bytes += static_cast<double>(share.bytes);
    elements += static_cast<double>(share.elements);
  }
  if (bytes <= 0) return {};
  std::string bar = R"(<div class="stack" aria-hidden="true">)";
  std::string table =
      R"(<div class="scroll"><table class="list"><thead><tr><th scope="col">bits/group, encoder</th><th scope="col" class="n">modules</th><th scope="col" class="n">bits per weight</th><th scope="col" class="n">weights</th><th scope="col" class="n">bytes</th><th scope="col" class="n">of all bytes</th></tr></thead><tbody>)";
  for (const auto& [name, share] : shares) {
    const std::string percent = percent_text(static_cast<double>(share.bytes), bytes);
    put(bar, R"(<span class="b{}" style="flex-grow:{}" data-tip="{}&#10;{} · {}">{}</span>)",
        bits_level(share.bits()), share.bytes, escape(name), bytes_text(share.bytes), percent,
        static_cast<double>(share.bytes) > 0.08 * bytes ? escape(name) : std::string());
    put(table,
        R"(<tr><td><span class="chip b{}"></span>{}</td><td class="n">{}</td><td class="n">{:.3f}</td><td class="n">{}</td><td class="n">{}</td><td class="n">{}</td></tr>)",
        bits_level(share.bits()), escape(name), share.modules, share.bits(),
        percent_text(static_cast<double>(share.elements), elements), bytes_text(share.bytes),
        percent);
  }
  return bar + "</div>" + table + "</tbody></table></div>";
}

std::string weakest_table(const ModuleViews& views) {
  auto modules = by_db(views);
  std::erase_if(modules, [](const ModuleView* module) { return std::isinf(module->db()); });
  if (modules.size() > kWeakestRows) modules.resize(kWeakestRows);
  return modules.empty() ? std::string() : module_table(views, modules, false);
}

std::string experts_table(const ModuleViews& views) {
  std::vector<const ModuleView*> modules;
  for (const ModuleView& module : views.modules)
    if (module.has_experts && module.quantizable && std::isfinite(module.worst_expert_db))
      modules.push_back(&module);
  std::ranges::stable_sort(modules, {}, &ModuleView::worst_expert_db);
  if (modules.size() > kExpertRows) modules.resize(kExpertRows);
  if (modules.empty()) return {};
  std::string out =
      R"(<div class="scroll"><table class="list"><thead><tr><th scope="col">module</th><th scope="col">format</th><th scope="col" class="n">worst expert</th><th scope="col" class="n">its SQNR</th><th scope="col" class="n">all experts</th><th scope="col" class="n">below</th></tr></thead><tbody>)";
  for (const ModuleView* module : modules)
    put(out,
        R"(<tr><td>{}</td><td>{}</td><td class="n">{}</td><td class="n">{}</td><td class="n">{}</td><td class="n">{:.2f} dB</td></tr>)",
        name_html(module->name), escape(module->format), module->worst_expert,
        db_text(module->worst_expert_db), db_text(module->db()),
        module->db() - module->worst_expert_db);
  return out + "</tbody></table></div>";
}

std::string roles_table(const ModuleViews& views) {
  struct Row {
    Share share;
    numerics::ErrorStats after, before;
    double cost = 0;
    const ModuleView* worst = nullptr;
  };
  std::map<std::string, Row> rows;
  for (const ModuleView& module : views.modules) {
    if (!module.quantizable) continue;
    Row& row = rows[module.role];
    ++row.share.modules;
    row.share.elements += module.elements;
    row.share.bytes += module.bytes;
    row.after.merge(module.after);
    if (module.before) row.before.merge(*module.before);
    row.cost += module.share;
    if (row.worst == nullptr || module.db() < row.worst->db()) row.worst = &module;
  }
  if (rows.empty()) return {};
  const bool rival = !views.uniform.empty();
  std::string out =
      R"(<div class="scroll"><table class="list"><thead><tr><th scope="col">role</th><th scope="col" class="n">modules</th><th scope="col" class="n">bits per weight</th><th scope="col" class="n">bytes</th><th scope="col" class="n">SQNR</th>)";
  if (rival) put(out, R"(<th scope="col" class="n">uniform {}</th>)", escape(views.uniform));
  if (views.priced) out += R"(<th scope="col" class="n">share of error</th>)";
  out += R"(<th scope="col" class="n">worst</th><th scope="col">in</th></tr></thead><tbody>)";
  for (const std::string& role : roles_of(views.modules)) {
    const Row& row = rows[role];
    put(out,
        R"(<tr><td>{}</td><td class="n">{}</td><td class="n">{:.3f}</td><td class="n">{}</td>)",
        escape(role), row.share.modules, row.share.bits(), bytes_text(row.share.bytes));
    out += db_cell(sqnr_db(row.after));
    if (rival) out += db_cell(sqnr_db(row.before));
    if (views.priced) put(out, R"(<td class="n">{}</td>)", percent_text(row.cost, 1));
    out += db_cell(row.worst->db());
    const bool exact = std::isinf(row.worst->db());
    put(out, "<td>{}</td></tr>", exact ? std::string() : name_html(row.worst->name));
  }
  return out + "</tbody></table></div>";
}

std::string all_modules_table(const ModuleViews& views) {
  std::vector<const ModuleView*> modules;
  for (const ModuleView& module : views.modules)
    if (module.quantizable) modules.push_back(&module);
  if (modules.empty()) return {};
  std::string note;
  if (modules.size() > kModuleRowsMax) {
    note = fmt::format("<p class=\"note\">The {} modules of least SQNR out of {}.</p>",
                       kModuleRowsMax, modules.size());
    modules = by_db(views);
    modules.resize(kModuleRowsMax);
  }
  return note + module_table(views, modules, true);
}

std::string verification_findings(const Verification& verification) {
  if (verification.findings.empty()) return {};
  std::string out =
      R"(<div class="scroll"><table class="list findings"><thead><tr><th scope="col">where</th><th scope="col">what</th></tr></thead><tbody>)";
  for (const Verification::Finding& finding : verification.findings)
    put(out, "<tr><td>{}</td><td>{}</td></tr>", name_html(finding.subject),
        escape(finding.message));
  out += "</tbody></table></div>";
  if (verification.finding_count > verification.findings.size())
    put(out, R"(<p class="note">… and {} more.</p>)",
        verification.finding_count - verification.findings.size());
  return out;
}

std::string stages_table(const std::vector<Stage>& stages) {
  double longest = 0;
  for (const Stage& stage : stages) longest = std::max(longest, stage.seconds);
  if (longest <= 0) return {};
  std::string out =
      R"(<div class="scroll"><table class="list"><thead><tr><th scope="col">stage</th><th scope="col" class="n">time</th><th scope="col" class="bar"></th><th scope="col" class="n">rate over the source</th></tr></thead><tbody>)";
  for (const Stage& stage : stages) {
    put(out,
        R"(<tr><td>{}</td><td class="n">{}</td><td class="bar"><span class="track"><span style="width:{}%"></span></span></td>)",
        escape(stage.name), duration_text(stage.seconds),
        coordinate(100 * stage.seconds / longest));
    if (stage.bytes > 0 && stage.seconds > 0)
      put(out, R"(<td class="n">{}/s</td></tr>)",
          bytes_text(static_cast<uint64_t>(static_cast<double>(stage.bytes) / stage.seconds)));
    else
      out += R"(<td class="n"></td></tr>)";
  }
  return out + "</tbody></table></div>";
}

std::string facts_list(const std::vector<Fact>& facts) {
  if (facts.empty()) return {};
  std::string out = "<dl>";
  for (const Fact& fact : facts)
    put(out, "<dt>{}</dt><dd>{}</dd>", escape(fact.label), escape(fact.value));
  return out + "</dl>";
}

}  // namespace sluice::report
