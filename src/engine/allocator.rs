//! How this process's allocator treats memory that is freed.
//!
//! A step allocates and frees the same large buffers over and over. By default glibc fetches each of them from the kernel, which
//! hands it over page by page, each with a fault, and takes it back at once: up to a third of the time of a small network's step.

/// Lets freed memory stay in the process, ready for the next allocation. To be called once, before the threads of a run start.
///
/// The peak stays what it was; what a run has used once, it keeps until it ends. Other allocators than glibc's are left as they are.
pub fn keep_freed_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    glibc::keep_freed_memory();
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
mod glibc {
    /// Never.
    const NONE: libc::c_int = 0;
    /// Read as an unsigned number: more than there can be.
    const UNLIMITED: libc::c_int = -1;

    #[expect(unsafe_code, reason = "glibc's allocator has no safe interface")]
    pub(super) fn keep_freed_memory() {
        // Large blocks come from the heap, not from the kernel; the heap is never cut; and there is one for all threads, so that
        // what one of them frees serves the others.
        for (parameter, value) in [(libc::M_MMAP_MAX, NONE), (libc::M_TRIM_THRESHOLD, UNLIMITED), (libc::M_ARENA_MAX, 1)] {
            // SAFETY: mallopt takes two numbers, locks the allocator while it changes them, and keeps all blocks valid.
            let is_set = unsafe { libc::mallopt(parameter, value) } == 1;
            debug_assert!(is_set, "glibc knows parameter {parameter}");
        }
    }

    #[cfg(test)]
    mod tests {
        use std::hint::black_box;

        use super::*;

        /// Page faults of this thread so far.
        fn page_faults() -> i64 {
            let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
            // Fields after the name, which ends with a parenthesis: the tenth of all is the number of minor faults.
            let fields = stat.rsplit_once(')').unwrap().1;
            fields.split_whitespace().nth(7).unwrap().parse().unwrap()
        }

        fn faults_of_a_large_block() -> i64 {
            let before = page_faults();
            drop(black_box(vec![1_u8; 256 << 20]));
            page_faults() - before
        }

        #[test]
        fn a_large_block_is_fetched_from_the_kernel_once() {
            keep_freed_memory();
            // Another test may take a part of the block in between, but hardly each time.
            faults_of_a_large_block();
            let least = (0..5).map(|_| faults_of_a_large_block()).min().unwrap();
            assert!(least < 1000, "{least} page faults for a block of 65536 pages that was freed before");
        }
    }
}
