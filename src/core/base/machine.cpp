#include "base/machine.h"

#include <sys/utsname.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <string_view>
#if defined(__APPLE__)
#include <mach/mach.h>
#include <sys/sysctl.h>
#endif

namespace sluice {
namespace {

#if defined(__linux__)
uint64_t meminfo_bytes(std::string_view key) {
  std::ifstream file("/proc/meminfo");
  std::string name, unit;
  uint64_t kibibytes = 0;
  while (file >> name >> kibibytes) {
    std::getline(file, unit);
    if (name == key) return kibibytes * 1024;
  }
  return 0;
}

// A file with a number, or "max" for none; 0 then and when it is not there.
uint64_t limit_in(const std::string& path) {
  uint64_t bytes = 0;
  std::ifstream file(path);
  if (!(file >> bytes)) return 0;
  // Version 1 writes the largest page multiple for no limit.
  return bytes >= uint64_t{1} << 62 ? 0 : bytes;
}

// The least limit on the way from this process's own cgroup to the root.
uint64_t cgroup_limit() {
  uint64_t least = limit_in("/sys/fs/cgroup/memory/memory.limit_in_bytes");
  std::ifstream groups("/proc/self/cgroup");
  std::string line;
  while (std::getline(groups, line)) {
    if (!line.starts_with("0::")) continue;
    for (std::string path = line.substr(3); !path.empty();) {
      const uint64_t limit = limit_in("/sys/fs/cgroup" + path + "/memory.max");
      if (limit != 0) least = least == 0 ? limit : std::min(least, limit);
      const size_t slash = path.find_last_of('/');
      path = slash == std::string::npos || path == "/" ? ""
                                                       : path.substr(0, std::max<size_t>(slash, 1));
    }
  }
  return least;
}
#endif

#if defined(__APPLE__)
std::string sysctl_text(const char* name) {
  size_t size = 0;
  if (sysctlbyname(name, nullptr, &size, nullptr, 0) != 0 || size == 0) return {};
  std::string text(size, '\0');
  if (sysctlbyname(name, text.data(), &size, nullptr, 0) != 0) return {};
  text.resize(std::min(size, text.find('\0')));
  return text;
}
#endif

}  // namespace

MemoryInfo detect_memory() {
  MemoryInfo info;
#if defined(__linux__)
  info.total = meminfo_bytes("MemTotal:");
  info.available = meminfo_bytes("MemAvailable:");
  info.limit = cgroup_limit();
#elif defined(__APPLE__)
  size_t size = sizeof info.total;
  sysctlbyname("hw.memsize", &info.total, &size, nullptr, 0);
  vm_statistics64_data_t pages{};
  mach_msg_type_number_t count = HOST_VM_INFO64_COUNT;
  if (host_statistics64(mach_host_self(), HOST_VM_INFO64, reinterpret_cast<host_info64_t>(&pages),
                        &count) == KERN_SUCCESS)
    info.available = (uint64_t{pages.free_count} + pages.inactive_count + pages.purgeable_count) *
                     static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
#endif
  return info;
}

std::string system_name() {
  utsname names{};
  if (uname(&names) != 0) return "unknown";
  return std::string(names.sysname) + " " + names.release + " " + names.machine;
}

std::string processor_name() {
#if defined(__APPLE__)
  return sysctl_text("machdep.cpu.brand_string");
#else
  std::ifstream file("/proc/cpuinfo");
  std::string line;
  while (std::getline(file, line)) {
    if (!line.starts_with("model name")) continue;
    const size_t start = line.find_first_not_of(" \t", line.find(':') + 1);
    return start == std::string::npos ? "" : line.substr(start);
  }
  return {};
#endif
}

}  // namespace sluice
