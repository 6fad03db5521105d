//! The CPU of this machine: name, cores, vector instructions.
//!
//! Reads `/proc/cpuinfo`; what cannot be read is `None`. Start at [`Processor::of_this_machine`].

use std::collections::BTreeSet;
use std::fs;
use std::thread::available_parallelism;

use serde::Serialize;

/// Features that decide the speed of matrix products, as `/proc/cpuinfo` names them; later ones
/// matter most.
const FEATURES: [&str; 13] = [
    "sse4_2",
    "avx",
    "f16c",
    "fma",
    "avx2",
    "avx512f",
    "avx512_bf16",
    "avx512_fp16",
    "amx_tile",
    "amx_bf16",
    "asimd",
    "bf16",
    "sve",
];

/// The CPU.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Processor {
    /// Name; untrusted text.
    pub model: Option<String>,
    /// Cores; `None` if unknown.
    pub cores: Option<usize>,
    /// Threads that this process may use, limits of containers and schedulers included.
    pub usable_threads: usize,
    /// The features that matter here.
    pub features: Vec<&'static str>,
}

impl Processor {
    /// Examines this machine.
    #[must_use]
    pub fn of_this_machine() -> Self {
        let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        Self { usable_threads: available_parallelism().map_or(1, usize::from), ..Self::read(&text) }
    }

    /// Reads the text of `/proc/cpuinfo`.
    fn read(text: &str) -> Self {
        let values = |name: &'static str| {
            text.lines().filter_map(move |line| {
                line.split_once(':')
                    .filter(|(key, _)| key.trim() == name)
                    .map(|(_, value)| value.trim())
            })
        };
        let model = ["model name", "Model", "cpu model"]
            .iter()
            .find_map(|name| values(name).next())
            .map(str::to_owned);
        let flags: BTreeSet<&str> = values("flags")
            .chain(values("Features"))
            .next()
            .unwrap_or_default()
            .split_whitespace()
            .collect();
        let cores: BTreeSet<(&str, &str)> = values("physical id").zip(values("core id")).collect();
        let num_threads = values("processor").count();
        let cores = Some(if cores.is_empty() { num_threads } else { cores.len() })
            .filter(|cores| *cores > 0);
        Self {
            model,
            cores,
            usable_threads: 0,
            features: FEATURES.into_iter().filter(|feature| flags.contains(feature)).collect(),
        }
    }

    /// The widest vectors, as text.
    #[must_use]
    pub fn vectors(&self) -> &'static str {
        let has = |feature: &str| self.features.contains(&feature);
        match () {
            () if has("amx_bf16") => "AVX-512 with bf16 and AMX",
            () if has("avx512_bf16") => "AVX-512 with bf16",
            () if has("avx512f") => "AVX-512",
            () if has("avx2") && has("fma") => "AVX2",
            () if has("asimd") => "NEON",
            () => "baseline only",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_x86_machine_is_read() {
        let core = |processor: usize, core: usize, flags: &str| {
            format!(
                "processor\t: {processor}\nmodel name\t: Some CPU @ 2GHz\nphysical id\t: 0\ncore \
                 id\t\t: {core}\nflags\t\t: fpu {flags}\n\n"
            )
        };
        let text = core(0, 0, "fma avx2 avx512f")
            + &core(1, 0, "fma avx2 avx512f")
            + &core(2, 1, "fma avx2 avx512f")
            + &core(3, 1, "fma avx2 avx512f");
        let found = Processor::read(&text);
        assert_eq!(
            found,
            Processor {
                model: Some("Some CPU @ 2GHz".into()),
                cores: Some(2),
                usable_threads: 0,
                features: vec!["fma", "avx2", "avx512f"]
            }
        );
        assert_eq!(found.vectors(), "AVX-512");
        assert_eq!(Processor::read(&core(0, 0, "sse4_2")).vectors(), "baseline only");
    }

    #[test]
    fn what_cannot_be_read_is_absent() {
        assert_eq!(Processor::read(""), Processor::default());
        let arm = Processor::read(
            "processor\t: 0\nFeatures\t: fp asimd sve\nprocessor\t: 1\nFeatures\t: fp asimd sve\n",
        );
        assert_eq!((arm.model, arm.cores, arm.features), (None, Some(2), vec!["asimd", "sve"]));
    }

    #[test]
    fn this_machine_has_a_thread() {
        assert!(Processor::of_this_machine().usable_threads > 0);
    }
}
