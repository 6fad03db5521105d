//! Figures as files. A PNG is the rendered SVG at twice its size, with the embedded font.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

use resvg::tiny_skia::{Pixmap, Transform};
use resvg::usvg::fontdb::Database;
use resvg::usvg::{Options, Tree};
use thiserror::Error;

use crate::advice::{Advice, Audience, FAILED, USAGE};
use crate::record::write_result;
use crate::report::figure::LineChart;

/// A subset of `DejaVu Sans`; its license is in the same folder.
const FONT: &[u8] = include_bytes!("../../../assets/font/DejaVuSans-subset.ttf");
/// Its name; also used for characters with another font name.
const FONT_FAMILY: &str = "DejaVu Sans";
/// PNG pixels per SVG pixel, so that text is sharp on high-resolution screens.
const PNG_SCALE: f32 = 2.0;

/// File format of a figure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FigureFormat {
    /// Vector graphics, for the web and for print.
    Svg,
    /// Pixel graphics.
    Png,
}

/// Why a figure cannot be written.
#[derive(Debug, Error)]
pub enum FigureError {
    /// The file name has no known extension.
    #[error("{} ends in neither .svg nor .png", path.display())]
    UnknownEnding {
        /// The file.
        path: PathBuf,
    },
    /// The chart cannot be rendered.
    #[error("cannot render the figure: {reason}")]
    Paint {
        /// Message of the renderer.
        reason: String,
    },
    /// The file cannot be written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Operating system error.
        source: io::Error,
    },
}

impl Advice for FigureError {
    fn hint(&self, _: Audience<'_>) -> String {
        match self {
            Self::UnknownEnding { .. } => "use a file name that ends in .svg or .png",
            Self::Paint { .. } => "write it as .svg instead",
            Self::Io { .. } => {
                "check that the folder exists, that you may write there and that the disk has space"
            }
        }
        .into()
    }

    fn exit_code(&self) -> u8 {
        match self {
            Self::UnknownEnding { .. } => USAGE,
            Self::Paint { .. } | Self::Io { .. } => FAILED,
        }
    }
}

impl FigureFormat {
    /// The format that the extension of `path` selects.
    ///
    /// # Errors
    /// When the extension is unknown.
    pub fn of(path: &Path) -> Result<Self, FigureError> {
        let ending = path.extension().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
        match ending.as_str() {
            "svg" => Ok(Self::Svg),
            "png" => Ok(Self::Png),
            _ => Err(FigureError::UnknownEnding { path: path.to_owned() }),
        }
    }
}

impl LineChart {
    /// Writes the chart to `path`, in the format that its extension selects; replaces an existing
    /// file, writes through a device or a pipe.
    ///
    /// # Errors
    /// When the extension is unknown or the file cannot be written; an existing file is then
    /// unchanged.
    pub fn write(&self, path: &Path) -> Result<(), FigureError> {
        let bytes = match FigureFormat::of(path)? {
            FigureFormat::Svg => self.to_svg().into_bytes(),
            FigureFormat::Png => self.to_png()?,
        };
        write_result(path, &bytes)
            .map_err(|source| FigureError::Io { path: path.to_owned(), source })
    }

    /// The chart as a PNG image.
    ///
    /// # Errors
    /// When it cannot be rendered.
    pub fn to_png(&self) -> Result<Vec<u8>, FigureError> {
        static FONTS: LazyLock<Arc<Database>> = LazyLock::new(|| {
            let mut fonts = Database::new();
            fonts.load_font_data(FONT.to_vec());
            fonts.set_sans_serif_family(FONT_FAMILY);
            Arc::new(fonts)
        });
        let failed = |reason: String| FigureError::Paint { reason };
        let options = Options {
            fontdb: Arc::clone(&FONTS),
            font_family: FONT_FAMILY.into(),
            ..Options::default()
        };
        let tree =
            Tree::from_str(&self.to_svg(), &options).map_err(|error| failed(error.to_string()))?;
        let size = tree
            .size()
            .to_int_size()
            .scale_by(PNG_SCALE)
            .ok_or_else(|| failed("it is too large".into()))?;
        let mut pixels = Pixmap::new(size.width(), size.height())
            .ok_or_else(|| failed("it is too large".into()))?;
        resvg::render(&tree, Transform::from_scale(PNG_SCALE, PNG_SCALE), &mut pixels.as_mut());
        pixels.encode_png().map_err(|error| failed(error.to_string()))
    }
}
