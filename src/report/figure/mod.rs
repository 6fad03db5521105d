//! Line charts as SVG, and the same SVG as PNG.
//!
//! Charts have a white background; lines differ in color, dash and marker, so that they can be told
//! apart without color. Start at [`LineChart`].

mod axis;
mod chart;
mod file;
mod style;
mod svg;

pub use axis::{Axis, AxisRange, AxisTicks};
pub use chart::{Line, LineChart};
pub use file::{FigureError, FigureFormat};
