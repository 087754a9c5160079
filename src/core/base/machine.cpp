#include "base/machine.h"

#include <fmt/format.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <string_view>
#if defined(__GLIBC__)
#include <malloc.h>
#endif
#if defined(__linux__)
#include <link.h>
#include <sys/mman.h>
#endif
#if defined(__APPLE__)
#include <mach/mach.h>
#include <malloc/malloc.h>
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

// The least of a file's limits on the way from a group to the root of its hierarchy.
uint64_t least_limit(const std::string& root, std::string group, std::string_view file) {
  uint64_t least = 0;
  while (true) {
    const uint64_t limit = limit_in(fmt::format("{}{}/{}", root, group, file));
    if (limit != 0) least = least == 0 ? limit : std::min(least, limit);
    if (group.empty()) return least;
    group.resize(group == "/" ? 0 : group.find_last_of('/'));
  }
}

// Of this process's own groups. Lines are "number:controllers:/group"; number 0 is version 2. In a
// container that hides its place in the hierarchy the group is not found, but its root is.
uint64_t cgroup_limit() {
  uint64_t least = 0;
  std::ifstream groups("/proc/self/cgroup");
  std::string line;
  while (std::getline(groups, line)) {
    const size_t first = line.find(':'), second = line.find(':', first + 1);
    if (second == std::string::npos || line[second + 1] != '/') continue;
    const std::string controllers = "," + line.substr(first + 1, second - first - 1) + ",";
    const std::string group = line.substr(second + 1);
    uint64_t limit = 0;
    if (line.starts_with("0::"))
      limit = least_limit("/sys/fs/cgroup", group, "memory.max");
    else if (controllers.contains(",memory,"))
      limit = least_limit("/sys/fs/cgroup/memory", group, "memory.limit_in_bytes");
    if (limit != 0) least = least == 0 ? limit : std::min(least, limit);
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

uint64_t resident_bytes() {
#if defined(__linux__)
  std::ifstream file("/proc/self/statm");
  uint64_t size = 0, resident = 0;
  if (!(file >> size >> resident)) return 0;
  return resident * static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
#elif defined(__APPLE__)
  mach_task_basic_info_data_t info{};
  mach_msg_type_number_t count = MACH_TASK_BASIC_INFO_COUNT;
  if (task_info(mach_task_self(), MACH_TASK_BASIC_INFO, reinterpret_cast<task_info_t>(&info),
                &count) != KERN_SUCCESS)
    return 0;
  return info.resident_size;
#else
  return 0;
#endif
}

void return_memory_early() {
#if defined(__GLIBC__)
  // Left alone the threshold grows to twice the largest buffer that was freed, up to 64 MB, and
  // holds for the heap of every thread.
  mallopt(M_TRIM_THRESHOLD, 256 << 10);
#endif
}

void return_freed_memory() {
#if defined(__GLIBC__)
  malloc_trim(0);
#elif defined(__APPLE__)
  malloc_zone_pressure_relief(nullptr, 0);
#endif
}

void return_code_pages() {
#if defined(__linux__)
  // Nobody writes to code, so that its pages are the file's. The program comes first; pages that it
  // shares with a neighbouring segment stay.
  const auto of_program = [](dl_phdr_info* info, size_t, void*) {
    const auto page = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
    for (size_t i = 0; i < info->dlpi_phnum; ++i) {
      const ElfW(Phdr)& segment = info->dlpi_phdr[i];
      if (segment.p_type != PT_LOAD || segment.p_flags != (PF_R | PF_X)) continue;
      const uintptr_t begin = (info->dlpi_addr + segment.p_vaddr + page - 1) / page * page;
      const uintptr_t end = (info->dlpi_addr + segment.p_vaddr + segment.p_memsz) / page * page;
      if (begin < end) (void)madvise(reinterpret_cast<void*>(begin), end - begin, MADV_DONTNEED);
    }
    return 1;
  };
  dl_iterate_phdr(of_program, nullptr);
#endif
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
