#![no_main]

use libfuzzer_sys::{fuzz_mutator, fuzz_target};

#[path = "../../tests/it/fuzz/mod.rs"]
mod fuzz;

fuzz_target!(|bytes: &[u8]| fuzz::run("tensors", bytes));
fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| { patchtui_fuzz::mutate(data, size, max_size, seed) });
