//! What Linux says about the CPU.

use std::fs;

/// Flags that decide how fast matrices are multiplied, in the words of `/proc/cpuinfo`; the last ones are those of ARM.
const FLAGS: [&str; 15] =
    ["sse4_2", "avx", "avx2", "fma", "f16c", "avx512f", "avx512bw", "avx512vl", "avx512_vnni", "avx512_bf16", "amx_tile", "amx_bf16", "asimd", "sve", "bf16"];

/// Model and flags of a CPU.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Cpu {
    /// `None` where the system does not say.
    pub(super) model: Option<String>,
    /// Those of [`FLAGS`] that it has.
    pub(super) flags: Vec<String>,
}

impl Cpu {
    /// The one that runs this.
    pub(super) fn of_this_machine() -> Self {
        Self::parse(&fs::read_to_string("/proc/cpuinfo").unwrap_or_default())
    }

    fn parse(text: &str) -> Self {
        let value = |names: [&str; 2]| {
            let fields = text.lines().filter_map(|line| line.split_once(':')).map(|(name, value)| (name.trim(), value.trim()));
            fields.into_iter().find(|(name, _)| names.contains(name)).map(|(_, value)| value.to_owned())
        };
        let flags = value(["flags", "Features"]).unwrap_or_default();
        let has = |flag: &str| flags.split_whitespace().any(|found| found == flag);
        Self { model: value(["model name", "Model"]), flags: FLAGS.into_iter().filter(|flag| has(flag)).map(str::to_owned).collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn model_and_flags_are_found() {
        let text = "processor\t: 0\nmodel name\t: A CPU: fast\nflags\t\t: fpu avx2 avx512f fma avx2x\n\nprocessor\t: 1\nmodel name\t: Another\n";
        assert_eq!(Cpu::parse(text), Cpu { model: Some("A CPU: fast".into()), flags: ["avx2", "fma", "avx512f"].map(str::to_owned).to_vec() });
        assert_eq!(Cpu::parse("Features\t: fp asimd bf16\n"), Cpu { model: None, flags: ["asimd", "bf16"].map(str::to_owned).to_vec() });
        assert_eq!(Cpu::parse(""), Cpu { model: None, flags: Vec::new() });
    }
}
