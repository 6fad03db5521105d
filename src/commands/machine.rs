//! Memory that this machine has available for a run.
//!
//! Reads `/proc`, control groups and resource limits; what cannot be read counts as unlimited. Start at [`available_memory`].

use std::fs;
use std::path::{Path, PathBuf};

use rustix::process::{Resource, getrlimit};

/// Bytes that this process can still allocate: the least of what the machine, its control groups and its resource limits
/// leave. `None` if nothing is known.
#[must_use]
pub fn available_memory() -> Option<u64> {
    let read = |path: &Path| fs::read_to_string(path).ok();
    let meminfo = read(Path::new("/proc/meminfo")).unwrap_or_default();
    let swap = kilobytes(&meminfo, "SwapFree:").unwrap_or(0);
    let machine = kilobytes(&meminfo, "MemAvailable:");
    let groups = read(Path::new("/proc/self/cgroup")).unwrap_or_default();
    let group = group_folders(&groups).iter().filter_map(|folder| group_headroom(folder, &read)).min();
    // What does not fit into memory may still fit into swap: slow, but not impossible.
    let with_swap = [machine, group].into_iter().flatten().min().map(|bytes| bytes.saturating_add(swap));
    let status = read(Path::new("/proc/self/status")).unwrap_or_default();
    let below = |limit: Resource, used: &str| getrlimit(limit).current.map(|limit| limit.saturating_sub(kilobytes(&status, used).unwrap_or(0)));
    [with_swap, below(Resource::As, "VmSize:"), below(Resource::Data, "VmData:")].into_iter().flatten().min()
}

/// Bytes of memory that the machine has; `None` if unknown.
#[must_use]
pub fn total_memory() -> Option<u64> {
    kilobytes(&fs::read_to_string("/proc/meminfo").unwrap_or_default(), "MemTotal:")
}

/// The value of a line like `MemAvailable:   24000 kB`, in bytes.
fn kilobytes(text: &str, name: &str) -> Option<u64> {
    let value = text.lines().find_map(|line| line.strip_prefix(name))?;
    value.trim().trim_end_matches("kB").trim().parse::<u64>().ok().map(|kilobytes| kilobytes.saturating_mul(1024))
}

/// The folders of the memory control groups that hold this process, from the innermost to the root of each hierarchy.
fn group_folders(groups: &str) -> Vec<PathBuf> {
    let mut folders = Vec::new();
    for line in groups.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else { continue };
        let root = match controllers {
            "" => Path::new("/sys/fs/cgroup"),
            list if list.split(',').any(|controller| controller == "memory") => Path::new("/sys/fs/cgroup/memory"),
            _ => continue,
        };
        // In a container the path may be that of the host, which is not there; the root then is the container's own group.
        let inside = Path::new(path.trim_start_matches('/'));
        folders.extend(inside.ancestors().map(|part| root.join(part)));
    }
    folders
}

/// What the limit of one control group (version 2 or 1) leaves; memory that only caches files does not count as used.
fn group_headroom(folder: &Path, read: &dyn Fn(&Path) -> Option<String>) -> Option<u64> {
    let number = |name: &str| read(&folder.join(name))?.trim().parse::<u64>().ok();
    let limit = number("memory.max").or_else(|| number("memory.limit_in_bytes"))?;
    let used = number("memory.current").or_else(|| number("memory.usage_in_bytes")).unwrap_or(0);
    let statistics = read(&folder.join("memory.stat")).unwrap_or_default();
    let statistic = |name: &str| statistics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse::<u64>().ok());
    let cached: u64 = ["inactive_file", "active_file"].iter().filter_map(|name| statistic(&format!("total_{name}")).or_else(|| statistic(name))).sum();
    Some(limit.saturating_sub(used.saturating_sub(cached)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_proc_are_read_in_bytes() {
        let text = "MemTotal:       24689400 kB\nMemAvailable:   24000000 kB\nSwapFree:              0 kB\n";
        assert_eq!(kilobytes(text, "MemAvailable:"), Some(24_000_000 * 1024));
        assert_eq!(kilobytes(text, "SwapFree:"), Some(0));
        assert_eq!(kilobytes(text, "VmSize:"), None);
        assert_eq!(kilobytes("VmSize: many kB", "VmSize:"), None);
    }

    #[test]
    fn both_kinds_of_control_groups_are_found() {
        let folders = |text: &str| group_folders(text).iter().map(|folder| folder.display().to_string()).collect::<Vec<_>>();
        assert_eq!(folders("0::/a/b\n"), ["/sys/fs/cgroup/a/b", "/sys/fs/cgroup/a", "/sys/fs/cgroup/"]);
        assert_eq!(folders("4:memory:/jobs\n3:cpuset:/\n"), ["/sys/fs/cgroup/memory/jobs", "/sys/fs/cgroup/memory/"]);
        assert_eq!(folders("broken\n"), Vec::<String>::new());
    }

    #[test]
    fn a_group_leaves_its_limit_less_what_is_used_and_cannot_be_dropped() {
        let headroom = |files: &[(&str, &str)]| {
            let read = |path: &Path| files.iter().find(|(name, _)| path.ends_with(name)).map(|(_, text)| (*text).to_owned());
            group_headroom(Path::new("/group"), &read)
        };
        let version_2 = [("memory.max", "1000\n"), ("memory.current", "600\n"), ("memory.stat", "anon 300\ninactive_file 100\nactive_file 50\n")];
        assert_eq!(headroom(&version_2), Some(550));
        let version_1 = [
            ("memory.limit_in_bytes", "1000"),
            ("memory.usage_in_bytes", "600"),
            ("memory.stat", "inactive_file 1\ntotal_inactive_file 100\ntotal_active_file 0"),
        ];
        assert_eq!(headroom(&version_1), Some(500));
        assert_eq!(headroom(&[("memory.max", "max\n")]), None, "no limit");
        assert_eq!(headroom(&[]), None, "no such group");
        assert_eq!(headroom(&[("memory.max", "100"), ("memory.current", "600")]), Some(0));
    }

    #[test]
    fn this_machine_has_memory() {
        assert!(available_memory().is_none_or(|bytes| bytes > 0));
    }
}
