//! Why a run failed, with a hint for each error.

use burn::tensor::ExecutionError;
use thiserror::Error;

use crate::advice::{Advice, Audience, FAILED};
use crate::data::DataError;
use crate::engine::device::{DeviceError, PrecisionError, device_reason};
use crate::engine::open::OpenError;
use crate::engine::self_check::WrongResult;
use crate::engine::tensor_file::TensorFileError;
use crate::plan::PlanError;
use crate::record::{CheckpointError, Difference, FindCheckpointError, Rejected};
use crate::tasks::TaskError;

/// Why a run failed.
#[derive(Debug, Error)]
pub enum EngineError {
    /// The requested device cannot be used.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// The device does not support the precision of the run.
    #[error(transparent)]
    Precision(#[from] PrecisionError),
    /// The device computes wrong results.
    #[error(transparent)]
    WrongDevice(#[from] WrongResult),
    /// The text cannot be prepared.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The configuration has no valid plan.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// A checkpoint cannot be written or read.
    #[error("checkpoint: {0}")]
    Checkpoint(#[from] CheckpointError),
    /// The tensors of a checkpoint cannot be read.
    #[error("checkpoint: {0}")]
    Tensors(#[from] TensorFileError),
    /// The initial weights cannot be read.
    #[error("model.init_from: {0}")]
    InitialWeights(Box<OpenError>),
    /// The checkpoint to fork from cannot be used.
    #[error("training.fork_from: {0}")]
    Fork(#[from] ForkError),
    /// A computation failed on the device.
    #[error("the device failed: {}", device_reason(.0))]
    Execution(#[from] ExecutionError),
    /// As [`Self::Execution`], where the device panics.
    #[error("the device failed: {reason}")]
    DevicePanic {
        /// Its message, in one line.
        reason: String,
    },
    /// A document of an evaluation task does not fit the model, or its file is broken.
    #[error(transparent)]
    Task(#[from] TaskError),
    /// A compute thread could not be started.
    #[error("cannot start a thread: {0}")]
    Thread(std::io::Error),
    /// A loss or gradient is not finite; the weights are those of the step before.
    #[error("the {what} of step {step} is {value}; its update was skipped")]
    NonFinite {
        /// Which number is not finite: the loss or the gradient norm.
        what: &'static str,
        /// The step that would have been completed.
        step: u64,
        /// The value: NaN or an infinity.
        value: f64,
    },
    /// The predictions of a network are not finite, although its weights are.
    #[error("the predictions of the model are not finite")]
    NonFinitePrediction,
    /// As [`Self::NonFinite`], detected later, on a device that the host does not wait for.
    #[error(
        "a loss or gradient norm was not finite at or before step {step}; every update from there \
         on was skipped"
    )]
    Poisoned {
        /// The step at which it was detected.
        step: u64,
    },
    /// The checkpoint was trained on other text.
    #[error("the text or its tokenizer has changed since the checkpoint at step {step}")]
    OtherData {
        /// The checkpoint's step.
        step: u64,
    },
    /// None of the checkpoints is valid.
    #[error("none of the run's checkpoints can be used ({} rejected); {} is not used: {}", rejected.len(), rejected[0].path.display(), rejected[0].reason)]
    NoUsableCheckpoint {
        /// All of them, newest first; at least one.
        rejected: Vec<Rejected>,
    },
    /// Every valid checkpoint belongs to another run.
    #[error("the checkpoint at step {step} belongs to another run: its {} is {}, but this run's is {}", difference.what, difference.found, difference.expected)]
    OtherRun {
        /// Step of the newest checkpoint.
        step: u64,
        /// The first difference.
        difference: Difference,
    },
    /// A file of the run directory cannot be written.
    #[error("{path}: {source}")]
    Io {
        /// Path of the file.
        path: String,
        /// Operating system error.
        source: std::io::Error,
    },
}

/// Why a run cannot fork from a checkpoint.
#[derive(Debug, Error)]
pub enum ForkError {
    /// There is no valid checkpoint.
    #[error(transparent)]
    Find(FindCheckpointError),
    /// The network or its vocabulary differs.
    #[error("{section} of the checkpoint differs from this configuration")]
    OtherNetwork {
        /// `model` or `data.tokenizer`.
        section: &'static str,
    },
    /// The plan has no steps left.
    #[error("the checkpoint is at step {step}, but the plan ends at step {steps}")]
    PlanEnds {
        /// Step of the checkpoint.
        step: u64,
        /// Steps of the plan.
        steps: u64,
    },
    /// The plan reads another number of tokens before that step than the checkpoint.
    #[error("the checkpoint has read {found} tokens by step {step}, but this plan reads {planned}")]
    OtherTokens {
        /// Step of the checkpoint.
        step: u64,
        /// Tokens that it has read.
        found: u64,
        /// Tokens that the plan reads before that step.
        planned: u64,
    },
}

impl Advice for ForkError {
    fn hint(&self, audience: Audience<'_>) -> String {
        match self {
            Self::Find(error) => error.hint(audience),
            Self::OtherNetwork { section } => {
                format!(
                    "keep {section} unchanged: run --from without a configuration uses the \
                     configuration of the checkpoint's run"
                )
            }
            Self::PlanEnds { .. } => {
                "raise the budget: training.tokens, positions, epochs or steps".into()
            }
            Self::OtherTokens { .. } => "keep training.tokens_per_step unchanged before that \
                                         step, or start a new run from the weights only with \
                                         model.init_from"
                .into(),
        }
    }

    fn exit_code(&self) -> u8 {
        FAILED
    }
}

impl Advice for EngineError {
    fn hint(&self, audience: Audience<'_>) -> String {
        let then_resume = match audience {
            Audience::Run(run) => format!(", then resume with: patchtui resume {run}"),
            _ => String::new(),
        };
        match self {
            Self::Device(error) => error.hint(audience),
            Self::Precision(error) => error.hint(audience),
            Self::WrongDevice(failure) => failure.hint(audience),
            Self::Data(error) => error.hint(audience),
            Self::Plan(error) => error.hint(audience),
            Self::Task(error) => error.hint(audience),
            Self::Checkpoint(error) => error.hint(audience),
            Self::InitialWeights(error) => error.hint(audience),
            Self::Fork(error) => error.hint(audience),
            Self::Tensors(TensorFileError::Device { problem, .. }) => {
                device_hint(problem, false, audience)
            }
            Self::Tensors(TensorFileError::Unusable { .. }) => {
                let resume = match audience {
                    Audience::Run(run) => format!(" with: patchtui resume {run}"),
                    _ => String::new(),
                };
                format!(
                    "the run had diverged when it saved this checkpoint: remove its folder to \
                     resume from an earlier one{resume}"
                )
            }
            Self::Tensors(_) | Self::Io { .. } => {
                format!("check free disk space and permissions{then_resume}")
            }
            Self::Execution(error) => {
                device_hint(&device_reason(error), error.is_device_poisoned(), audience)
            }
            Self::DevicePanic { reason } => device_hint(reason, false, audience),
            Self::Thread(_) => {
                format!("raise the limit on processes (ulimit -u){then_resume}")
            }
            // No update was made before the first loss.
            Self::NonFinite { step: 1, .. } => "the initial weights are the cause: under another \
                                                --name, start from other weights \
                                                (model.init_from) or lower model.initializer_range"
                .into(),
            Self::NonFinitePrediction => "its weights are damaged or its training diverged: use \
                                          another copy or an earlier checkpoint"
                .into(),
            Self::NonFinite { .. } | Self::Poisoned { .. } => {
                "start a new run under another --name, with a lower optimizer.learning_rate or a \
                 longer warm-up (schedule.warmup_steps)"
                    .into()
            }
            Self::NoUsableCheckpoint { .. } => {
                "restore a checkpoint from a copy, or start over under another --name".into()
            }
            Self::OtherRun { .. } => "use the version of patchtui that wrote it, or start a new \
                                      run under another --name"
                .into(),
            Self::OtherData { .. } => {
                "restore the original, or start a new run under another --name".into()
            }
        }
    }

    fn exit_code(&self) -> u8 {
        match self {
            Self::Precision(error) => error.exit_code(),
            _ => FAILED,
        }
    }
}

/// What to do about a device that failed for `reason`; a run's last checkpoint is intact in any
/// case.
fn device_hint(reason: &str, is_poisoned: bool, audience: Audience<'_>) -> String {
    let run = match audience {
        Audience::Run(run) => run,
        Audience::Evaluation => return "use a smaller --batch-tokens, or --device cpu".into(),
        Audience::Command | Audience::TokenizerTraining => {
            return "try again with --device cpu".into();
        }
    };
    let reason = reason.to_ascii_lowercase();
    let names = |words: &[&str]| words.iter().any(|word| reason.contains(word));
    let resume = format!("resume from the last checkpoint with: patchtui resume {run}");
    // An illegal access mentions memory, and an out-of-memory error mentions the driver: neither is
    // about the other.
    let is_of_driver = is_poisoned || names(&["illegal", "poison", "lost", "does not answer"]);
    if !is_of_driver
        && names(&[
            "out of memory",
            "out_of_memory",
            "outofmemory",
            "alloc",
            "too big",
            "buffer size",
        ])
    {
        let smaller = format!("--name {run} --set training.micro_batch_size=1 --resume");
        return format!(
            "a smaller micro-batch needs less memory and keeps the tokens per step; resume with \
             it, plus your other --set options: patchtui run CONFIG {smaller}"
        );
    }
    if is_of_driver || names(&["driver"]) {
        return format!("check the driver messages (dmesg), then {resume}");
    }
    format!("{resume}; if it fails again, lower training.micro_batch_size or use --device cpu")
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::path::PathBuf;

    use super::*;
    use crate::engine::tensor_file::TensorFileError;
    use crate::record::Trouble;

    const PRECISION: &str = "training.precision = \"bf16\" is not supported on the CPU: most CPUs \
                             multiply bf16 no faster than f32, so it would cost accuracy and save \
                             no time";

    fn denied() -> io::Error {
        io::Error::from(io::ErrorKind::PermissionDenied)
    }

    /// What to do about a disk.
    const DISK: &str =
        "check free disk space and permissions, then resume with: patchtui resume 'my books'";

    #[test]
    fn every_error_says_what_happened_and_what_to_do() {
        let diverged = "start a new run under another --name, with a lower \
                        optimizer.learning_rate or a longer warm-up (schedule.warmup_steps)";
        let path = PathBuf::from("run/file");
        let io = TensorFileError::Io { path: path.clone(), source: denied() };
        let damaged = TensorFileError::Damaged {
            path: path.clone(),
            problem: "it has no tensor a.weight".into(),
        };
        let not_found = |found| DeviceError::NotFound { device: "cuda:3".into(), found };
        check(vec![
            (
                DeviceError::NotBuilt { device: "wgpu".into(), feature: "wgpu" }.into(),
                "device \"wgpu\" is not part of this build of patchtui",
                "build with `cargo build --release --features wgpu`, or use --device cpu",
            ),
            (
                not_found(0).into(),
                "device \"cuda:3\" was not found: this machine has none of that kind",
                "check the GPU driver, or use --device cpu",
            ),
            (
                not_found(2).into(),
                "device \"cuda:3\" was not found: this machine has 2 of that kind",
                "the highest index is 1; --device auto picks a device",
            ),
            (io.into(), "checkpoint: run/file: permission denied", DISK),
            (damaged.into(), "checkpoint: run/file: it has no tensor a.weight", DISK),
            (
                EngineError::Thread(denied()),
                "cannot start a thread: permission denied",
                "raise the limit on processes (ulimit -u), then resume with: patchtui resume 'my \
                 books'",
            ),
            (
                EngineError::NonFinite { what: "gradient norm", step: 3, value: f64::INFINITY },
                "the gradient norm of step 3 is inf; its update was skipped",
                diverged,
            ),
            (
                EngineError::Poisoned { step: 40 },
                "a loss or gradient norm was not finite at or before step 40; every update from \
                 there on was skipped",
                diverged,
            ),
        ]);
    }

    #[test]
    fn errors_of_files_say_what_to_restore() {
        let path = PathBuf::from("run/file");
        check(vec![
            (
                CheckpointError::NoRoom { path: path.clone(), needed: 9, free: 4 }.into(),
                "checkpoint: run/file: it needs 9 B, but only 4 B are free",
                "free some disk space, then resume with: patchtui resume 'my books'",
            ),
            (
                EngineError::NoUsableCheckpoint {
                    rejected: vec![Rejected {
                        path: path.clone(),
                        reason: "it has 0 bytes".into(),
                    }],
                },
                "none of the run's checkpoints can be used (1 rejected); run/file is not used: it \
                 has 0 bytes",
                "restore a checkpoint from a copy, or start over under another --name",
            ),
            (
                EngineError::OtherRun {
                    step: 40,
                    difference: Difference {
                        what: "seed".into(),
                        found: "2".into(),
                        expected: "1".into(),
                    },
                },
                "the checkpoint at step 40 belongs to another run: its seed is 2, but this run's \
                 is 1",
                "use the version of patchtui that wrote it, or start a new run under another \
                 --name",
            ),
            (
                EngineError::OtherData { step: 40 },
                "the text or its tokenizer has changed since the checkpoint at step 40",
                "restore the original, or start a new run under another --name",
            ),
            (
                TaskError::ContinuationTooLong {
                    task: "piqa".into(),
                    doc_id: 65,
                    tokens: 80,
                    max_length: 64,
                }
                .into(),
                "piqa, document 65: the continuation has 80 tokens, but the context length is 64",
                "under another --name, raise training.context_length to 80 or more, or remove the \
                 task from tasks.names",
            ),
            (
                EngineError::Io { path: "run/plan.json".into(), source: denied() },
                "run/plan.json: permission denied",
                DISK,
            ),
        ]);
    }

    fn check(table: Vec<(EngineError, &str, &str)>) {
        for (error, message, hint) in table {
            let Trouble { message: found, hint: found_hint } = Trouble::of(&error, "my books");
            assert_eq!(found, message, "{error:?}");
            assert_eq!(found_hint.as_deref(), Some(hint), "{error:?}");
        }
    }

    #[test]
    fn weights_that_were_never_usable_are_not_blamed_on_the_learning_rate() {
        let path = PathBuf::from("run/file");
        check(vec![
            (
                EngineError::NonFinite { what: "loss", step: 1, value: f64::NAN },
                "the loss of step 1 is NaN; its update was skipped",
                "the initial weights are the cause: under another --name, start from other \
                 weights (model.init_from) or lower model.initializer_range",
            ),
            (
                EngineError::NonFinitePrediction,
                "the predictions of the model are not finite",
                "its weights are damaged or its training diverged: use another copy or an earlier \
                 checkpoint",
            ),
            (
                TensorFileError::Unusable {
                    path: path.clone(),
                    tensor: "a.weight".into(),
                    value: f32::NAN,
                }
                .into(),
                "checkpoint: run/file: a.weight holds NaN",
                "the run had diverged when it saved this checkpoint: remove its folder to resume \
                 from an earlier one with: patchtui resume 'my books'",
            ),
        ]);
    }

    #[test]
    fn a_device_that_fails_leads_to_the_last_checkpoint() {
        let memory = "a smaller micro-batch needs less memory and keeps the tokens per step; \
                      resume with it, plus your other --set options: patchtui run CONFIG --name \
                      'my books' --set training.micro_batch_size=1 --resume";
        let device =
            TensorFileError::Device { name: "a.weight".into(), problem: "out of memory".into() };
        let failure = WrongResult {
            device: "wgpu".into(),
            operation: "linear".into(),
            output: "rows, 8 x 4 to 4".into(),
            difference: 1.0,
            tolerance: 4e-3,
        };
        check(vec![
            (
                failure.into(),
                "wgpu computes wrong results: \"linear\" (rows, 8 x 4 to 4) differs from the CPU \
                 by 1.00e0 of its largest value (tolerance: 4e-3)",
                if crate::engine::device::USES_SPIRV {
                    "use --device cpu, or try a build that does not compile shaders through SPIR-V \
                     (cargo build --release --features wgpu)"
                } else {
                    "use --device cpu, or try another version of the GPU driver"
                },
            ),
            (PrecisionError::Cpu.into(), PRECISION, &PrecisionError::Cpu.hint(Audience::Command)),
            (
                device.into(),
                "checkpoint: cannot read a.weight from the device: out of memory",
                memory,
            ),
            (
                ExecutionError::WithContext {
                    reason: "out of memory\n  while allocating 4 GB".into(),
                }
                .into(),
                "the device failed: out of memory; while allocating 4 GB",
                memory,
            ),
            (
                EngineError::DevicePanic { reason: "parent device is lost".into() },
                "the device failed: parent device is lost",
                "check the driver messages (dmesg), then resume from the last checkpoint with: \
                 patchtui resume 'my books'",
            ),
            (
                EngineError::DevicePanic {
                    reason: "an illegal memory access was encountered".into(),
                },
                "the device failed: an illegal memory access was encountered",
                "check the driver messages (dmesg), then resume from the last checkpoint with: \
                 patchtui resume 'my books'",
            ),
            (
                EngineError::DevicePanic { reason: "DriverError(CUDA_ERROR_OUT_OF_MEMORY)".into() },
                "the device failed: DriverError(CUDA_ERROR_OUT_OF_MEMORY)",
                memory,
            ),
            (
                EngineError::DevicePanic { reason: "unknown kernel".into() },
                "the device failed: unknown kernel",
                "resume from the last checkpoint with: patchtui resume 'my books'; if it fails \
                 again, lower training.micro_batch_size or use --device cpu",
            ),
        ]);
    }

    #[test]
    fn errors_of_the_layers_below_keep_their_words() {
        let data = DataError::Interrupted;
        let plan = PlanError::SeveralRests { count: 2 };
        let expected = [Trouble::of(&data, "my books"), Trouble::of(&plan, "my books")];
        let errors = [EngineError::from(data), EngineError::from(plan)];
        assert_eq!(errors.map(|error| Trouble::of(&error, "my books")), expected);
    }
}
