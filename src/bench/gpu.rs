//! Data-sheet peaks of known GPUs.

use std::fs;

use crate::config::DeviceChoice;

/// Data-sheet peaks of a GPU, in floating-point operations per second, without sparsity.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct DataSheet {
    /// Part of the name that the driver reports.
    pub name: &'static str,
    /// Peak in f32 without tensor cores.
    pub f32: f64,
    /// Peak of bf16 matrix products with f32 accumulation.
    pub bf16: f64,
}

/// The first entry whose name is part of the driver's name is used. Source: NVIDIA's data sheets of
/// the A100, H100, H200, L4 and L40S, and its whitepapers on the Ampere (GA102) and Ada (AD102)
/// architectures.
const KNOWN: [DataSheet; 9] = [
    DataSheet { name: "A100", f32: 19.5e12, bf16: 312e12 },
    DataSheet { name: "H100 PCIe", f32: 51e12, bf16: 756e12 },
    DataSheet { name: "H100 NVL", f32: 60e12, bf16: 835e12 },
    DataSheet { name: "H100", f32: 67e12, bf16: 989e12 },
    DataSheet { name: "H200", f32: 67e12, bf16: 989e12 },
    DataSheet { name: "L40S", f32: 91.6e12, bf16: 362e12 },
    DataSheet { name: "L4", f32: 30.3e12, bf16: 121e12 },
    DataSheet { name: "RTX 4090", f32: 82.6e12, bf16: 165.2e12 },
    DataSheet { name: "RTX 3090", f32: 35.6e12, bf16: 71e12 },
];

/// Data sheet of the GPU that `choice` names, if all GPUs of this machine are of one kind and that
/// kind is known.
pub(super) fn data_sheet(choice: DeviceChoice) -> Option<DataSheet> {
    // Only CUDA devices are certain to be those of NVIDIA's driver.
    let may_be_cuda = matches!(choice, DeviceChoice::Cuda(_) | DeviceChoice::Auto);
    let folders = fs::read_dir("/proc/driver/nvidia/gpus").ok().filter(|_| may_be_cuda)?;
    let mut names: Vec<String> = folders
        .flatten()
        .filter_map(|folder| model(&fs::read_to_string(folder.path().join("information")).ok()?))
        .collect();
    names.sort();
    names.dedup();
    match names.as_slice() {
        [name] => sheet_of(name),
        _ => None,
    }
}

/// The GPU name in a file of the driver: `Model: NVIDIA H100 80GB HBM3`.
fn model(information: &str) -> Option<String> {
    information
        .lines()
        .find_map(|line| line.strip_prefix("Model:"))
        .map(|name| name.trim().to_owned())
}

fn sheet_of(name: &str) -> Option<DataSheet> {
    let words = |text: &str| text.split([' ', '-']).map(str::to_owned).collect::<Vec<_>>();
    let has_all =
        |sheet: &DataSheet| words(sheet.name).iter().all(|word| words(name).contains(word));
    KNOWN.into_iter().find(has_all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_the_driver_are_recognised() {
        let table = [
            ("NVIDIA A100-SXM4-80GB", Some("A100")),
            ("NVIDIA H100 80GB HBM3", Some("H100")),
            ("NVIDIA H100 PCIe", Some("H100 PCIe")),
            ("NVIDIA H200", Some("H200")),
            ("NVIDIA L40S", Some("L40S")),
            ("NVIDIA L4", Some("L4")),
            ("NVIDIA GeForce RTX 4090", Some("RTX 4090")),
            ("NVIDIA GeForce RTX 3090", Some("RTX 3090")),
            ("NVIDIA GeForce RTX 3080", None),
            ("NVIDIA L40", None),
        ];
        for (name, expected) in table {
            assert_eq!(sheet_of(name).map(|sheet| sheet.name), expected, "{name}");
        }
        assert_eq!(model("Model: \t\t NVIDIA L4\nIRQ: 5\n").as_deref(), Some("NVIDIA L4"));
    }
}
