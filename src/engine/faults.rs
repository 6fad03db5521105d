//! Handles panics: none reaches the terminal, and one caused by a GPU ends the run with a message
//! instead of a bug report.
//!
//! Burn reports a lost or broken device partly with errors and partly with panics, on the calling
//! thread and on the device's own thread. Start at [`log_panics`] and [`guarded`].

use std::any::Any;
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind, set_hook, take_hook};
use std::path::PathBuf;
use std::sync::Mutex;
use std::thread;

use crate::engine::error::EngineError;
use crate::record::files::append_regular;

/// The first panic of a thread other than the trainer's and its workers'; it is more specific than
/// what the trainer gets later.
static ELSEWHERE: FirstPanic = FirstPanic(Mutex::new(None));

/// Names of our threads; those of devices have other names or none.
const OURS: [&str; 6] = ["main", "trainer", "compute", "store", "control", "face"];

/// Writes every panic of this process to the file `log` from now on, and to standard error only if
/// it ends the process.
pub fn log_panics(log: PathBuf) {
    let print = take_hook();
    set_hook(Box::new(move |info| {
        let thread = thread::current();
        let name = thread.name().unwrap_or("unnamed");
        let message = words(info.payload()).unwrap_or("unknown reason");
        if !OURS.contains(&name) {
            ELSEWHERE.remember(message);
        }
        let place = info.location().map_or_else(String::new, ToString::to_string);
        if let Ok(mut file) = append_regular(&log) {
            let _ = writeln!(file, "panic in thread {name} at {place}: {message}");
        }
        if name == "main" {
            print(info);
        }
    }));
}

/// The first panic of a thread that is not ours.
pub fn unreported() -> Option<String> {
    ELSEWHERE.message()
}

/// Message of the first of several panics.
struct FirstPanic(Mutex<Option<String>>);

impl FirstPanic {
    fn remember(&self, message: &str) {
        if let Ok(mut first) = self.0.lock() {
            first.get_or_insert_with(|| message.to_owned());
        }
    }

    fn message(&self) -> Option<String> {
        self.0.lock().ok()?.clone()
    }
}

/// Runs `work`, which computes on the CPU or on another device; a panic caused by that device
/// becomes an error.
///
/// # Errors
/// What `work` returns; [`EngineError::DevicePanic`] if it panicked on another device than the CPU.
///
/// # Panics
/// When it panicked on the CPU: that is a bug, and is reported as one.
pub fn guarded<T>(
    is_cpu: bool,
    work: impl FnOnce() -> Result<T, EngineError>,
) -> Result<T, EngineError> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(result) => result,
        Err(panic) if is_cpu => resume_unwind(panic),
        Err(panic) => {
            Err(EngineError::DevicePanic { reason: reason(&*panic, ELSEWHERE.message()) })
        }
    }
}

/// The reason of a panic; `elsewhere` is the first panic of a device's own thread.
fn reason(panic: &(dyn Any + Send), elsewhere: Option<String>) -> String {
    let said = words(panic).unwrap_or("unknown reason");
    // What the trainer gets when the device's thread has ended.
    let is_echo = said.contains("RecvError") || said.contains("SendError");
    let text = match (is_echo, elsewhere) {
        (true, Some(first)) => first,
        (true, None) => "its driver does not answer any more".to_owned(),
        (false, _) => said.to_owned(),
    };
    text.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join("; ")
}

fn words(panic: &(dyn Any + Send)) -> Option<&str> {
    panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::advice::{Advice, Audience};

    #[test]
    fn a_panic_over_a_gpu_is_an_error_with_its_reason() {
        let error = guarded::<()>(false, || panic!("Out of memory\n   on device 0")).unwrap_err();
        assert_eq!(error.to_string(), "the device failed: Out of memory; on device 0");
        let hint = error.hint(Audience::Run("books"));
        assert!(hint.contains("training.micro_batch_size"), "{hint}");
        assert!(matches!(guarded(false, || Ok(7)), Ok(7)));
        let error = guarded::<()>(false, || Err(EngineError::Poisoned { step: 1 })).unwrap_err();
        assert!(matches!(error, EngineError::Poisoned { step: 1 }));
    }

    #[test]
    fn a_panic_over_the_cpu_stays_a_bug() {
        let panic = catch_unwind(|| guarded::<()>(true, || panic!("out of range"))).unwrap_err();
        assert_eq!(words(&*panic), Some("out of range"));
    }

    #[test]
    fn the_first_panic_of_a_foreign_thread_is_kept() {
        let elsewhere = FirstPanic(Mutex::new(None));
        assert_eq!(elsewhere.message(), None);
        elsewhere.remember("device lost");
        elsewhere.remember("and then the rest");
        assert_eq!(elsewhere.message().as_deref(), Some("device lost"));
    }

    #[test]
    fn the_echo_of_a_dead_device_is_replaced_by_what_killed_it() {
        let echo: Box<dyn Any + Send> =
            Box::new("called `Result::unwrap()` on an `Err` value: RecvError".to_owned());
        assert_eq!(reason(&*echo, Some("device lost".into())), "device lost");
        assert_eq!(reason(&*echo, None), "its driver does not answer any more");
        let own: Box<dyn Any + Send> = Box::new("shape mismatch");
        assert_eq!(reason(&*own, Some("device lost".into())), "shape mismatch");
        assert_eq!(reason(&*(Box::new(3) as Box<dyn Any + Send>), None), "unknown reason");
    }
}
