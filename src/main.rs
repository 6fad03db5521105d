//! Parses, calls, prints the error and its hint, and returns the exit code.

fn main() {}
