//! How much memory the machine, or the container that we are in, has left.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Bytes that can still be had without anything being swapped or killed: the least of what the machine has and what
/// the control groups of this process allow. `None` where nobody says (not on Linux).
pub(crate) fn available() -> Option<u64> {
    let machine = field(&fs::read_to_string("/proc/meminfo").ok()?, "MemAvailable:").map(|kib| kib * 1024);
    machine.into_iter().chain(groups().into_iter().filter_map(|group| left_in(&group))).min()
}

/// Directories that limit us: our control group and those above it (version 2), and the container's own (version 1).
fn groups() -> Vec<PathBuf> {
    let text = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let own = text.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or("/");
    let root = PathBuf::from("/sys/fs/cgroup");
    let own = root.join(own.trim_start_matches('/'));
    let above = own.ancestors().take_while(|group| group.starts_with(&root)).map(PathBuf::from);
    above.chain([root.join("memory")]).collect()
}

fn left_in(group: &Path) -> Option<u64> {
    let read = |name: &str| fs::read_to_string(group.join(name)).ok();
    let number = |names: [&str; 2]| -> Option<u64> { names.into_iter().find_map(read)?.trim().parse().ok() };
    let limit = number(["memory.max", "memory.limit_in_bytes"])?;
    let used = number(["memory.current", "memory.usage_in_bytes"])?;
    // Cached file contents count as used and go when memory is wanted.
    let cached = read("memory.stat").and_then(|text| field(&text, "inactive_file")).unwrap_or(0);
    Some(limit.saturating_sub(used.saturating_sub(cached)))
}

fn field(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.split_whitespace().next()?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_found_by_their_name() {
        let text = "MemTotal:       24683852 kB\nMemAvailable:   23000000 kB\n";
        assert_eq!(field(text, "MemAvailable:"), Some(23_000_000));
        assert_eq!(field("anon 5\ninactive_file 42\n", "inactive_file"), Some(42));
        assert_eq!(field(text, "SwapTotal:"), None);
    }

    #[test]
    fn a_group_leaves_what_is_not_used_and_what_is_cached() {
        let group = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(group.path().join(name), text).unwrap();
        assert_eq!(left_in(group.path()), None);
        write("memory.max", "1000\n");
        write("memory.current", "700\n");
        write("memory.stat", "anon 500\ninactive_file 200\n");
        assert_eq!(left_in(group.path()), Some(500));
        write("memory.max", "max\n");
        assert_eq!(left_in(group.path()), None);
        let first = tempfile::tempdir().unwrap();
        fs::write(first.path().join("memory.limit_in_bytes"), "900\n").unwrap();
        fs::write(first.path().join("memory.usage_in_bytes"), "300\n").unwrap();
        assert_eq!(left_in(first.path()), Some(600));
    }
}
