//! Facts about this computer: processor, memory, disk, devices, terminal, what ends at logout.
//!
//! What cannot be found out is `None`; nothing here is changed or printed.

pub mod devices;
pub mod logout;
pub mod memory;
pub mod processor;
pub mod storage;
pub mod terminal;
