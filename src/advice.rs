//! What every error adds to its message: what to type next, and the exit code.

/// Exit code for a request that the user has to change.
pub const USAGE: u8 = 2;
/// Exit code when something failed.
pub const FAILED: u8 = 1;

/// Who reads a hint: it names only keys, options and commands that exist there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Audience<'a> {
    /// The user of any command but these two.
    Command,
    /// The user of `patchtui tokenizer train`.
    TokenizerTraining,
    /// The user of `patchtui eval`.
    Evaluation,
    /// The user of a run that has failed; its name, as a word for a shell.
    Run(&'a str),
}

/// What an error adds to its message.
pub trait Advice {
    /// What to type next.
    fn hint(&self, audience: Audience<'_>) -> String;

    /// Exit code of a command that fails with this error.
    fn exit_code(&self) -> u8;
}
