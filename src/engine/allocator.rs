//! Settings of the process's memory allocator.
//!
//! A step repeatedly allocates and frees the same large buffers. By default glibc requests each of
//! them from the kernel, with a page fault per page, and returns it at once: up to a third of the
//! step time of a small network.

/// Keeps freed memory in the process, ready for the next allocation. Call once, before the threads
/// of a run start.
///
/// The peak is unchanged; memory that a run has used stays with it until it ends. Other allocators
/// than glibc's are left unchanged.
pub fn keep_freed_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    glibc::keep_freed_memory();
}

/// Returns free memory to the system, so that the next measurement does not count it.
pub fn give_back_freed_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    glibc::give_back_freed_memory();
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
mod glibc {
    /// Zero: no block is mapped separately.
    const NONE: libc::c_int = 0;
    /// Read as an unsigned number: larger than any block.
    const UNLIMITED: libc::c_int = -1;

    #[expect(unsafe_code, reason = "glibc's allocator has no safe interface")]
    pub(super) fn keep_freed_memory() {
        // Large blocks come from the heap, not from the kernel; the heap is never trimmed; and all
        // threads share one arena, so that a block freed by one thread can be reused by the
        // others.
        for (parameter, value) in
            [(libc::M_MMAP_MAX, NONE), (libc::M_TRIM_THRESHOLD, UNLIMITED), (libc::M_ARENA_MAX, 1)]
        {
            // SAFETY: mallopt takes two numbers, locks the allocator while it changes them, and
            // keeps all blocks valid.
            let is_set = unsafe { libc::mallopt(parameter, value) } == 1;
            debug_assert!(is_set, "glibc knows parameter {parameter}");
        }
    }

    #[expect(unsafe_code, reason = "glibc's allocator has no safe interface")]
    pub(super) fn give_back_freed_memory() {
        // SAFETY: malloc_trim takes a number, locks the allocator, and releases only pages that no
        // block uses.
        unsafe { libc::malloc_trim(0) };
    }

    #[cfg(test)]
    mod tests {
        use std::env;
        use std::hint::black_box;
        use std::process::Command;

        use super::*;

        /// Page faults of this thread so far.
        fn page_faults() -> i64 {
            let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
            // Fields after the name, which ends with a parenthesis: the tenth of all is the number
            // of minor faults.
            let fields = stat.rsplit_once(')').unwrap().1;
            fields.split_whitespace().nth(7).unwrap().parse().unwrap()
        }

        /// Size of a block that glibc would request from the kernel each time, and that fits into
        /// the heap of any thread.
        fn faults_of_a_large_block() -> i64 {
            let before = page_faults();
            drop(black_box(vec![1_u8; 40 << 20]));
            page_faults() - before
        }

        /// Set in a separate process, where no other test allocates.
        const ALONE: &str = "PATCHTUI_TEST_ALONE";

        #[test]
        fn a_large_block_is_fetched_from_the_kernel_once() {
            if env::var_os(ALONE).is_none() {
                let name = "engine::allocator::glibc::tests::a_large_block_is_fetched_from_the_kernel_once";
                let child = Command::new(env::current_exe().unwrap())
                    .args([name, "--exact", "--test-threads=1"])
                    .env(ALONE, "1")
                    .output()
                    .unwrap();
                let text = String::from_utf8_lossy(&child.stdout);
                assert!(child.status.success() && text.contains("1 passed"), "{text}");
                return;
            }
            keep_freed_memory();
            assert!(faults_of_a_large_block() > 10_000);
            let again = faults_of_a_large_block();
            assert!(
                again < 100,
                "{again} page faults for a block of 10240 pages that was freed before"
            );
        }
    }
}
