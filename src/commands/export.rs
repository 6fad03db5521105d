//! `patchtui export`: writes a model in the Hugging Face format.

use crate::advice::Failure;
use crate::cli::{Dtype, ExportArgs};
use crate::commands::Runs;
use crate::commands::model::find_model;
use crate::config::Count;
use crate::engine::export::{ExportRequest, export};
use crate::engine::tensor_header::NumberFormat;
use crate::report::tell;
use crate::text::format;

/// Exports the model that the command line names. Returns the exit code.
///
/// # Errors
/// When there is no such model, or the directory cannot be written; a partial directory is removed.
pub fn run(args: &ExportArgs, runs: &Runs) -> Result<u8, Failure> {
    let max_shard_bytes = bytes_of(&args.max_shard_size)?;
    let model = find_model(&args.checkpoint, runs)?;
    let number_format = match args.dtype {
        Dtype::F32 => NumberFormat::F32,
        Dtype::Bf16 => NumberFormat::Bf16,
        Dtype::F16 => NumberFormat::F16,
    };
    let request = ExportRequest {
        to: &args.to,
        format: number_format,
        max_shard_bytes,
        allow_patch_stage: args.allow_patch_stage,
    };
    let report = export(&model, &request)?;
    let parameters = format::short_count(model.shape.num_parameters() as f64);
    let files = if report.num_files == 1 {
        "one file".to_owned()
    } else {
        format!("{} files", report.num_files)
    };
    tell(&format!(
        "Wrote {3}: {0}, {parameters} parameters as {1} ({2} in {files})",
        model.origin.name(),
        number_format.name(),
        format::bytes(report.weight_bytes),
        args.to.display()
    ));
    Ok(0)
}

/// Parses a size like `5GB`, `500M` or `1000000` into bytes.
fn bytes_of(text: &str) -> Result<u64, Failure> {
    let trimmed = text.trim();
    let number = trimmed
        .strip_suffix(['B', 'b'])
        .filter(|rest| rest.ends_with(|c: char| c.is_ascii_alphabetic()))
        .unwrap_or(trimmed);
    let count = number.parse::<Count>().ok().filter(|count| count.0 > 0);
    count.map(|count| count.0).ok_or_else(|| {
        Failure::usage(
            format!("--max-shard-size {text:?} is not a size"),
            "write a size like 5GB or 500MB",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_powers_of_ten_with_or_without_a_unit() {
        let read = |text| bytes_of(text).map_err(|error| error.message);
        for (text, bytes) in [
            ("5GB", 5_000_000_000),
            ("500MB", 500_000_000),
            ("1.5G", 1_500_000_000),
            ("2kb", 2000),
            ("1000", 1000),
        ] {
            assert_eq!(read(text), Ok(bytes), "{text}");
        }
        for text in ["", "B", "GB", "0", "-1GB", "5XB", "five"] {
            assert_eq!(read(text), Err(format!("--max-shard-size {text:?} is not a size")));
        }
    }
}
