//! Line charts as SVG, and the same SVG as PNG.
//!
//! Knows numbers and names, never what they mean; a chart is drawn on white, and its lines differ in colour, dash and marker, so
//! that they can be told apart without colours. Start at [`LineChart`].

mod axis;
mod chart;
mod file;
mod style;
mod svg;

pub use axis::{Axis, AxisRange, AxisTicks};
pub use chart::{Line, LineChart};
pub use file::{FigureError, FigureFormat};
