//! Charts as PNG, from their SVG, for places that show no SVG.
//!
//! Text is drawn in a typeface that the program carries, so the same chart gives the same bytes on any machine.

use std::sync::Arc;

use resvg::tiny_skia::{Pixmap, Transform};
use resvg::usvg::{Options, Tree, fontdb};

use crate::ViewError;

/// Pixels for each of the chart's own: sharp on screens and in slides.
const SCALE: f32 = 2.0;

/// A chart as a PNG file, `SCALE` times the size of its SVG.
pub fn png(svg: &str) -> Result<Vec<u8>, ViewError> {
    let failed = |why: String| ViewError::Drawing(why);
    let mut fonts = fontdb::Database::new();
    fonts.load_font_data(dejavu::sans::regular().to_vec());
    // Charts ask for no other face than "sans-serif".
    fonts.set_sans_serif_family("DejaVu Sans");
    let options = Options { fontdb: Arc::new(fonts), ..Options::default() };
    let tree = Tree::from_str(svg, &options).map_err(|error| failed(error.to_string()))?;
    let size = tree.size().to_int_size().scale_by(SCALE);
    let size = size.ok_or_else(|| failed("it has no size".to_owned()))?;
    let pixels = Pixmap::new(size.width(), size.height());
    let mut pixels = pixels.ok_or_else(|| failed("it has no size".to_owned()))?;
    resvg::render(&tree, Transform::from_scale(SCALE, SCALE), &mut pixels.as_mut());
    pixels.encode_png().map_err(|error| failed(error.to_string()))
}
