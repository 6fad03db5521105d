//! Memory available for a run on this machine.
//!
//! Reads `/proc`, control groups and resource limits; what cannot be read counts as unlimited.
//! Start at [`Memory::of_this_machine`].

use std::fs;
use std::path::{Path, PathBuf};

use rustix::process::{Resource, getrlimit};
use serde::Serialize;

/// Memory of this machine, in bytes; `None` if unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Memory {
    /// Bytes that this process can still allocate, swap and limits included.
    pub available: Option<u64>,
    /// The part of it that is swap (slow).
    pub swap: Option<u64>,
    /// Lowest limit of the control groups of this process.
    pub limit: Option<u64>,
    /// Total memory of the machine, without swap.
    pub total: Option<u64>,
}

/// Bytes that this process can still allocate. `None` if unknown.
#[must_use]
pub fn available_memory() -> Option<u64> {
    Memory::of_this_machine().available
}

impl Memory {
    /// The minimum over the machine, the control groups and the resource limits of this process.
    #[must_use]
    pub fn of_this_machine() -> Self {
        let read = |path: &Path| fs::read_to_string(path).ok();
        let status = read(Path::new("/proc/self/status")).unwrap_or_default();
        let below = |limit: Resource, used: &str| {
            getrlimit(limit)
                .current
                .map(|limit| limit.saturating_sub(kilobytes(&status, used).unwrap_or(0)))
        };
        let most = [below(Resource::As, "VmSize:"), below(Resource::Data, "VmData:")]
            .into_iter()
            .flatten()
            .min();
        Self::of(most, &read)
    }

    /// The memory as read by `read`; resource limits leave at most `most` bytes.
    fn of(most: Option<u64>, read: &dyn Fn(&Path) -> Option<String>) -> Self {
        let meminfo = read(Path::new("/proc/meminfo")).unwrap_or_default();
        let groups = read(Path::new("/proc/self/cgroup")).unwrap_or_default();
        let groups: Vec<Group> =
            group_folders(&groups).iter().filter_map(|folder| Group::read(folder, read)).collect();
        let least = |of_machine: Option<u64>, of_group: fn(&Group) -> Option<u64>| {
            groups.iter().filter_map(of_group).chain(of_machine).min()
        };
        let memory = least(kilobytes(&meminfo, "MemAvailable:"), |group| group.memory);
        let swap = least(Some(kilobytes(&meminfo, "SwapFree:").unwrap_or(0)), |group| group.swap);
        let with_swap = memory.map(|memory| memory.saturating_add(swap.unwrap_or(0)));
        let available = [with_swap, most].into_iter().flatten().min();
        Self {
            available,
            swap: available.zip(memory).map(|(available, memory)| available.saturating_sub(memory)),
            limit: least(None, |group| group.limit),
            total: kilobytes(&meminfo, "MemTotal:"),
        }
    }
}

/// The value of a line like `MemAvailable:   24000 kB`, in bytes.
pub(crate) fn kilobytes(text: &str, name: &str) -> Option<u64> {
    let value = text.lines().find_map(|line| line.strip_prefix(name))?;
    value
        .trim()
        .trim_end_matches("kB")
        .trim()
        .parse::<u64>()
        .ok()
        .map(|kilobytes| kilobytes.saturating_mul(1024))
}

/// Folders of the memory control groups of this process, from the innermost to the root of each
/// hierarchy.
fn group_folders(groups: &str) -> Vec<PathBuf> {
    let mut folders = Vec::new();
    for line in groups.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else { continue };
        let root = match controllers {
            "" => Path::new("/sys/fs/cgroup"),
            list if list.split(',').any(|controller| controller == "memory") => {
                Path::new("/sys/fs/cgroup/memory")
            }
            _ => continue,
        };
        // In a container the path may be that of the host, which does not exist there; the root is
        // then the container's own group.
        let inside = Path::new(path.trim_start_matches('/'));
        folders.extend(inside.ancestors().map(|part| root.join(part)));
    }
    folders
}

/// Limits of one control group (version 2 or 1), in bytes; `None`: no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Group {
    /// Memory limit.
    limit: Option<u64>,
    /// What is left of it; page cache does not count as used.
    memory: Option<u64>,
    /// Swap still available to it.
    swap: Option<u64>,
}

impl Group {
    /// Version 1 writes numbers like this if there is no limit.
    const UNLIMITED: u64 = 1 << 60;

    fn read(folder: &Path, read: &dyn Fn(&Path) -> Option<String>) -> Option<Self> {
        let number = |name: &str| {
            read(&folder.join(name))?
                .trim()
                .parse::<u64>()
                .ok()
                .filter(|number| *number < Self::UNLIMITED)
        };
        let statistics = read(&folder.join("memory.stat")).unwrap_or_default();
        let statistic = |name: &str| {
            statistics.lines().find_map(|line| {
                line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse::<u64>().ok()
            })
        };
        let cached: u64 = ["inactive_file", "active_file"]
            .iter()
            .filter_map(|name| statistic(&format!("total_{name}")).or_else(|| statistic(name)))
            .sum();
        let left = |limit: u64, used: Option<u64>| {
            limit.saturating_sub(used.unwrap_or(0).saturating_sub(cached))
        };
        let limit = number("memory.max").or_else(|| number("memory.limit_in_bytes"));
        let memory = limit.map(|limit| {
            left(limit, number("memory.current").or_else(|| number("memory.usage_in_bytes")))
        });
        let own_swap = number("memory.swap.max")
            .map(|limit| limit.saturating_sub(number("memory.swap.current").unwrap_or(0)));
        // Version 1 limits memory and swap together.
        let together = number("memory.memsw.limit_in_bytes")
            .map(|limit| left(limit, number("memory.memsw.usage_in_bytes")));
        let swap = own_swap.or_else(|| Some(together?.saturating_sub(memory?)));
        (limit.is_some() || swap.is_some()).then_some(Self { limit, memory, swap })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_proc_are_read_in_bytes() {
        let text = "MemTotal:       24689400 kB\nMemAvailable:   24000000 kB\nSwapFree:              0 \
             kB\n";
        assert_eq!(kilobytes(text, "MemAvailable:"), Some(24_000_000 * 1024));
        assert_eq!(kilobytes(text, "SwapFree:"), Some(0));
        assert_eq!(kilobytes(text, "VmSize:"), None);
        assert_eq!(kilobytes("VmSize: many kB", "VmSize:"), None);
    }

    #[test]
    fn both_kinds_of_control_groups_are_found() {
        let folders = |text: &str| {
            group_folders(text)
                .iter()
                .map(|folder| folder.display().to_string())
                .collect::<Vec<_>>()
        };
        assert_eq!(
            folders("0::/a/b\n"),
            ["/sys/fs/cgroup/a/b", "/sys/fs/cgroup/a", "/sys/fs/cgroup/"]
        );
        assert_eq!(
            folders("4:memory:/jobs\n3:cpuset:/\n"),
            ["/sys/fs/cgroup/memory/jobs", "/sys/fs/cgroup/memory/"]
        );
        assert_eq!(folders("broken\n"), Vec::<String>::new());
    }

    #[test]
    fn a_group_leaves_its_limit_less_what_is_used_and_cannot_be_dropped() {
        let headroom = |files: &[(&str, &str)]| {
            Group::read(Path::new("/group"), &reader(files)).and_then(|group| group.memory)
        };
        let version_2 = [
            ("memory.max", "1000\n"),
            ("memory.current", "600\n"),
            ("memory.stat", "anon 300\ninactive_file 100\nactive_file 50\n"),
        ];
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

    /// Files by the end of their paths.
    fn reader<'a>(files: &'a [(&'a str, &'a str)]) -> impl Fn(&Path) -> Option<String> + 'a {
        |path| {
            files.iter().find(|(name, _)| path.ends_with(name)).map(|(_, text)| (*text).to_owned())
        }
    }

    #[test]
    fn the_swap_of_the_machine_counts_as_far_as_the_group_may_use_it() {
        const MACHINE: [(&str, &str); 2] = [
            ("meminfo", "MemTotal: 25 kB\nMemAvailable: 24 kB\nSwapFree: 11 kB\n"),
            ("self/cgroup", "0::/job\n4:memory:/job\n"),
        ];
        let found = |files: &[(&str, &str)], most: Option<u64>| {
            let memory = Memory::of(most, &reader(&[&MACHINE[..], files].concat()));
            [memory.available, memory.swap, memory.limit, memory.total]
                .map(|bytes| bytes.map(|bytes| bytes / 1024))
        };
        assert_eq!(found(&[], None), [Some(35), Some(11), None, Some(25)]);
        assert_eq!(
            found(&[("memory.swap.max", "0")], None),
            [Some(24), Some(0), None, Some(25)],
            "a group without swap"
        );
        assert_eq!(
            found(&[("memory.swap.max", "max")], None),
            [Some(35), Some(11), None, Some(25)]
        );
        let both = [
            ("memory.max", "8192"),
            ("memory.current", "2048"),
            ("memory.swap.max", "4096"),
            ("memory.swap.current", "1024"),
        ];
        assert_eq!(found(&both, None), [Some(9), Some(3), Some(8), Some(25)]);
        let version_1 = [
            ("memory.limit_in_bytes", "8192"),
            ("memory.usage_in_bytes", "2048"),
            ("memory.memsw.limit_in_bytes", "9216"),
            ("memory.memsw.usage_in_bytes", "2048"),
        ];
        assert_eq!(
            found(&version_1, None),
            [Some(7), Some(1), Some(8), Some(25)],
            "memory and swap together"
        );
        let unlimited = [
            ("memory.limit_in_bytes", "9223372036854771712"),
            ("memory.memsw.limit_in_bytes", "9223372036854771712"),
        ];
        assert_eq!(found(&unlimited, None), [Some(35), Some(11), None, Some(25)]);
        assert_eq!(
            found(&[], Some(10 * 1024)),
            [Some(10), Some(0), None, Some(25)],
            "a limit of the process"
        );
    }

    #[test]
    fn this_machine_has_memory() {
        assert!(available_memory().is_none_or(|bytes| bytes > 0));
    }
}
