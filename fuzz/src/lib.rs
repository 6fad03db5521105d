//! What the targets share: how an input is read, and how it is changed.
//!
//! The reading is that of the test that replays the corpora. The general mutator mostly breaks a
//! format of text with numbers in it, and what lies behind its parser is then not reached; so whole
//! numbers, lines and words are changed as well. Start at [`run`] and [`mutate`].

#[path = "../../tests/it/fuzz/mod.rs"]
mod fuzz;

use libfuzzer_sys::fuzzer_mutate;

/// Numbers at the borders of types and of plausible sizes, and what is no number.
const NUMBERS: [&[u8]; 24] = [
    b"0",
    b"1",
    b"-1",
    b"2",
    b"3",
    b"7",
    b"255",
    b"65536",
    b"2147483648",
    b"4294967295",
    b"4294967296",
    b"4611686018427387904",
    b"9223372036854775807",
    b"18446744073709551615",
    b"18446744073709551616",
    b"-9223372036854775808",
    b"0.5",
    b"-0.0",
    b"1e-300",
    b"1e300",
    b"1e400",
    b"\"NaN\"",
    b"\"+Inf\"",
    b"null",
];

/// Pieces of text that readers treat specially.
const WORDS: [&[u8]; 24] = [
    b"\x1b[2J",
    b"\\u001b]0;x\\u0007",
    b"\\u009b31m",
    b"\\u202e",
    b"\xc2\x9b",
    b"\xe2\x80\xae",
    b"\xef\xbb\xbf",
    b"\r\n",
    b"\r",
    b"\0",
    b"\xff",
    b"\xf0\x9f\x91\xa9",
    b"\xcc\x81",
    b"\xe4\xb8\xad",
    b"..",
    b"/",
    b"[]",
    b"{}",
    b"\"\"",
    b"true",
    b"NaN",
    b"\n%%\n",
    b",",
    b"\"",
];

/// Lets the target `name` read `bytes`.
pub fn run(name: &str, bytes: &[u8]) {
    fuzz::run(name, bytes);
}

/// Changes the first `size` of `data`, and returns the new size, which is at most `max_size`.
pub fn mutate(data: &mut [u8], size: usize, max_size: usize, seed: u32) -> usize {
    let mut random = Random(u64::from(seed) | 1 << 40);
    let changed = match random.below(4) {
        0 => with_another_number(&data[..size], &mut random),
        1 => with_another_line(&data[..size], &mut random),
        2 if random.below(3) == 0 => with_a_word(&data[..size], &mut random),
        _ => None,
    };
    match changed.filter(|changed| changed.len() <= max_size && !changed.is_empty()) {
        Some(changed) => {
            data[..changed.len()].copy_from_slice(&changed);
            changed.len()
        }
        None => fuzzer_mutate(data, size, max_size),
    }
}

/// Replaces one number.
fn with_another_number(data: &[u8], random: &mut Random) -> Option<Vec<u8>> {
    let is_part = |byte: &u8| byte.is_ascii_digit() || b"+-.eE".contains(byte);
    let starts: Vec<usize> = (0..data.len())
        .filter(|at| {
            data[*at].is_ascii_digit()
                && (*at == 0 || !is_part(&data[at - 1]) && !data[at - 1].is_ascii_alphabetic())
        })
        .collect();
    let start = *starts.get(random.below(starts.len()))?;
    let length = data[start..].iter().take_while(|byte| is_part(byte)).count();
    // Half of the time another number of the input: sizes that must agree do so then.
    let other = *starts.get(random.below(starts.len()))?;
    let other = &data[other..other + data[other..].iter().take_while(|byte| is_part(byte)).count()];
    let number = if random.below(2) == 0 { other } else { NUMBERS[random.below(NUMBERS.len())] };
    Some([&data[..start], number, &data[start + length..]].concat())
}

/// Removes, repeats or moves one line.
fn with_another_line(data: &[u8], random: &mut Random) -> Option<Vec<u8>> {
    let mut lines: Vec<&[u8]> = data.split(|byte| *byte == b'\n').collect();
    if lines.len() < 2 {
        return None;
    }
    let (from, to) = (random.below(lines.len()), random.below(lines.len()));
    match random.below(3) {
        0 => drop(lines.remove(from)),
        1 => lines.insert(to, lines[from]),
        _ => lines.swap(from, to),
    }
    Some(lines.join(&b'\n'))
}

/// Inserts one word.
fn with_a_word(data: &[u8], random: &mut Random) -> Option<Vec<u8>> {
    let at = random.below(data.len() + 1);
    Some([&data[..at], WORDS[random.below(WORDS.len())], &data[at..]].concat())
}

/// A generator of numbers that look random (splitmix64).
struct Random(u64);

impl Random {
    /// A number below `limit`; 0 if that is 0.
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed >> 32) as usize % limit.max(1)
    }
}
