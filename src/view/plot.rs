//! Charts as SVG and PNG: lines over points with intervals, one panel or several side by side.
//!
//! The same figure gives the same bytes. Twelve series differ by marker and colour. Text of an SVG uses the reader's
//! fonts, so widths are estimated. Only points that an axis cannot show are left out. Writes and reads nothing.

mod axis;

use std::sync::Arc;

use agrpo_store::{JobsError, Result};
use plotters::{coord::Shift, prelude::*};
use resvg::tiny_skia::{Pixmap, Transform};
use resvg::usvg::{Options, Tree, fontdb};

pub use self::axis::Axis;
pub(crate) use self::axis::pixel;

use crate::statistics::Interval;

/// Several panels under one title.
#[derive(Clone, Debug)]
pub struct Figure {
    /// Above all panels.
    pub title: String,
    /// Side by side.
    pub panels: Vec<Panel>,
}

/// One pair of axes and what is drawn between them.
#[derive(Clone, Debug)]
pub struct Panel {
    /// Above the axes.
    pub title: String,
    /// The horizontal axis.
    pub x: Axis,
    /// The vertical axis.
    pub y: Axis,
    /// What is drawn, the last on top.
    pub series: Vec<Series>,
    /// A height to compare with, a thin line from side to side: its name in the legend, and where it is.
    pub level: Option<(String, f64)>,
}

/// A line through points.
#[derive(Clone, Debug)]
pub struct Series {
    /// Its name in the legend.
    pub name: String,
    /// From left to right.
    pub points: Vec<Point>,
    /// How their intervals are shown.
    pub spread: Spread,
}

/// How the intervals of a series are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spread {
    /// A whisker at every point.
    Whiskers,
    /// A band behind the line.
    Band,
}

/// A point and its interval.
#[derive(Clone, Copy, Debug)]
pub struct Point {
    /// Along the horizontal axis.
    pub x: f64,
    /// Along the vertical axis.
    pub y: f64,
    /// Of `y`, where it is known.
    pub interval: Option<Interval>,
}

const PANEL: (u32, u32) = (480, 360);
const TITLE_HEIGHT: u32 = 34;
const LEGEND_LINE: i32 = 18;
const WHISKERS_APART: i32 = 6;
pub(crate) const INK: RGBColor = RGBColor(0x33, 0x33, 0x33);
pub(crate) const GRID: RGBColor = RGBColor(0xe4, 0xe4, 0xe4);
const LEVEL: RGBColor = RGBColor(0x88, 0x88, 0x88);
/// M. Okabe and K. Ito, "Color universal design", 2008: apart for every kind of colour vision.
const COLOURS: [RGBColor; 6] = [
    RGBColor(0x00, 0x72, 0xb2),
    RGBColor(0xd5, 0x5e, 0x00),
    RGBColor(0x00, 0x9e, 0x73),
    RGBColor(0xcc, 0x79, 0xa7),
    RGBColor(0xe6, 0x9f, 0x00),
    RGBColor(0x56, 0xb4, 0xe9),
];

pub(crate) type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
pub(crate) type Drawn = Result<()>;

/// The figure as an SVG document.
pub fn svg(figure: &Figure) -> Result<String> {
    let columns = figure.panels.len().max(1);
    let width = PANEL.0 * u32::try_from(columns).unwrap_or(1);
    canvas((width, PANEL.1 + TITLE_HEIGHT), |root| {
        let (head, body) = root.split_vertically(TITLE_HEIGHT);
        write(&head, &figure.title, (16, 11), 16)?;
        let mut panels = figure.panels.iter().zip(body.split_evenly((1, columns)));
        panels.try_for_each(|(panel, area)| draw_panel(panel, &area))
    })
}

/// An SVG document of this size: what is drawn on a white ground.
pub(crate) fn canvas(size: (u32, u32), draw: impl FnOnce(&Area<'_>) -> Drawn) -> Result<String> {
    let mut text = String::new();
    {
        let root = SVGBackend::with_string(&mut text, size).into_drawing_area();
        root.fill(&WHITE).map_err(failed)?;
        draw(&root)?;
        root.present().map_err(failed)?;
    }
    Ok(text)
}

pub(crate) fn failed(error: impl std::fmt::Display) -> JobsError {
    JobsError::internal(format!("cannot draw the chart: {error}"))
}

pub(crate) fn write(area: &Area<'_>, text: &str, at: (i32, i32), size: u32) -> Drawn {
    let style = ("sans-serif", size).into_font().color(&INK);
    area.draw(&Text::new(text.to_owned(), at, style)).map_err(failed)
}

fn draw_panel(panel: &Panel, area: &Area<'_>) -> Drawn {
    write(area, &panel.title, (16, 2), 14)?;
    let used = draw_legend(panel, area)?;
    let (_, body) = area.split_vertically(used);
    let points = || panel.series.iter().flat_map(|series| panel.shown(series));
    let xs: Vec<f64> = points().map(|point| point.x).collect();
    let ys: Vec<f64> = points()
        .flat_map(|point| {
            let ends = point.interval.map(|interval| [interval.low, interval.high]);
            std::iter::once(point.y).chain(ends.into_iter().flatten())
        })
        .chain(panel.level.as_ref().map(|(_, y)| *y))
        .collect();
    let (x, y) = (panel.x.scale(&xs), panel.y.scale(&ys));
    let (left, right) = (x.range().start, x.range().end);
    let mut chart = ChartBuilder::on(&body)
        .margin_right(18)
        .margin_left(6)
        .x_label_area_size(46)
        .y_label_area_size(64)
        .build_cartesian_2d(x, y)
        .map_err(failed)?;
    chart
        .configure_mesh()
        .bold_line_style(GRID)
        .light_line_style(TRANSPARENT)
        .axis_style(INK)
        .label_style(("sans-serif", 13).into_font().color(&INK))
        .axis_desc_style(("sans-serif", 14).into_font().color(&INK))
        .x_desc(panel.x.title.as_str())
        .y_desc(panel.y.title.as_str())
        .draw()
        .map_err(failed)?;
    // Markers and caps have sizes of their own, so everything is drawn in pixels.
    let screen = chart.plotting_area().use_screen_coord();
    if let Some((_, y)) = panel.level.as_ref().filter(|(_, y)| panel.y.shows(*y)) {
        let ends = [left, right].map(|x| chart.backend_coord(&(x, *y)));
        screen.draw(&PathElement::new(ends.to_vec(), LEVEL)).map_err(failed)?;
    }
    for (index, series) in panel.series.iter().enumerate() {
        let shift = panel.shift(index);
        let at = |x, y| {
            let (x, y) = chart.backend_coord(&(x, y));
            (x + shift, y)
        };
        draw_series(&screen, series.spread, index, &panel.shown(series), at)?;
    }
    Ok(())
}

impl Panel {
    fn shown(&self, series: &Series) -> Vec<Point> {
        let is_shown = |point: &Point| {
            let ends = |of: Interval| self.y.shows(of.low) && self.y.shows(of.high);
            let interval = point.interval.is_none_or(ends);
            self.x.shows(point.x) && self.y.shows(point.y) && interval
        };
        series.points.iter().copied().filter(is_shown).collect()
    }

    /// The horizontal offset of a series: whiskers at one position would hide each other.
    fn shift(&self, index: usize) -> i32 {
        let is_whiskered = |series: &Series| {
            let mut points = series.points.iter();
            series.spread == Spread::Whiskers && points.any(|point| point.interval.is_some())
        };
        let all = self.series.iter().filter(|series| is_whiskered(series)).count();
        let before = self.series.iter().take(index).filter(|series| is_whiskered(series)).count();
        if is_whiskered(&self.series[index]) {
            WHISKERS_APART * pixels(before) - WHISKERS_APART * (pixels(all) - 1) / 2
        } else {
            0
        }
    }
}

/// Draws the names of the lines above the axes; returns the height used.
fn draw_legend(panel: &Panel, area: &Area<'_>) -> Result<u32> {
    const LEFT: i32 = 70;
    let right = i32::try_from(area.dim_in_pixel().0).unwrap_or(i32::MAX);
    let (mut x, mut y) = (LEFT, 24);
    let series = panel.series.iter().map(|series| (&series.name, Some(series.spread)));
    let level = panel.level.iter().map(|(name, _)| (name, None));
    for (index, (name, spread)) in series.chain(level).enumerate() {
        let width = 46 + 7 * pixels(name.chars().count());
        if x > LEFT && x + width > right {
            (x, y) = (LEFT, y + LEGEND_LINE);
        }
        let middle = y + 6;
        let line = vec![(x, middle), (x + 24, middle)];
        let ink = spread.map_or(LEVEL.stroke_width(1), |_| colour(index).stroke_width(2));
        area.draw(&PathElement::new(line, ink)).map_err(failed)?;
        if spread.is_some() {
            draw_marker(area, (x + 12, middle), index)?;
        }
        write(area, name, (x + 30, y), 13)?;
        x += width;
    }
    Ok(u32::try_from(y + LEGEND_LINE + 6).unwrap_or(0))
}

fn draw_series(
    screen: &Area<'_>,
    spread: Spread,
    index: usize,
    points: &[Point],
    at: impl Fn(f64, f64) -> (i32, i32),
) -> Drawn {
    let ink = colour(index);
    let intervals: Vec<_> = points.iter().filter_map(|p| Some((p.x, p.interval?))).collect();
    if spread == Spread::Band {
        let below = intervals.iter().map(|&(x, interval)| at(x, interval.low));
        let above = intervals.iter().rev().map(|&(x, interval)| at(x, interval.high));
        let outline: Vec<_> = below.chain(above).collect();
        screen.draw(&Polygon::new(outline, ink.mix(0.18))).map_err(failed)?;
    }
    let line: Vec<_> = points.iter().map(|point| at(point.x, point.y)).collect();
    screen.draw(&PathElement::new(line.clone(), ink.stroke_width(2))).map_err(failed)?;
    if spread == Spread::Whiskers {
        for (x, Interval { low, high }) in intervals {
            let (low, high) = (at(x, low), at(x, high));
            let cap = |(x, y): (i32, i32)| vec![(x - 4, y), (x + 4, y)];
            for stroke in [vec![low, high], cap(low), cap(high)] {
                screen.draw(&PathElement::new(stroke, ink)).map_err(failed)?;
            }
        }
    }
    line.into_iter().try_for_each(|centre| draw_marker(screen, centre, index))
}

pub(crate) fn colour(index: usize) -> RGBColor {
    COLOURS[index % COLOURS.len()]
}

/// A filled shape: a disc, a square, a triangle or a diamond.
fn draw_marker(area: &Area<'_>, (x, y): (i32, i32), index: usize) -> Drawn {
    let corners: &[(i32, i32)] = match index % 4 {
        0 => &[],
        1 => &[(-4, -4), (4, -4), (4, 4), (-4, 4)],
        2 => &[(0, -5), (5, 4), (-5, 4)],
        _ => &[(0, -5), (5, 0), (0, 5), (-5, 0)],
    };
    let fill = colour(index).filled();
    if corners.is_empty() {
        return area.draw(&Circle::new((x, y), 4, fill)).map_err(failed);
    }
    let corners: Vec<_> = corners.iter().map(|&(right, down)| (x + right, y + down)).collect();
    area.draw(&Polygon::new(corners, fill)).map_err(failed)
}

pub(crate) fn pixels(count: usize) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}

/// Pixels for each of the chart's own: sharp on screens and in slides.
const SCALE: f32 = 2.0;

/// A chart as a PNG file, `SCALE` times the size of its SVG.
pub fn png(svg: &str) -> Result<Vec<u8>> {
    let sizeless = || failed("it has no size");
    let mut fonts = fontdb::Database::new();
    fonts.load_font_data(dejavu::sans::regular().to_vec());
    // Charts ask for no other face than "sans-serif".
    fonts.set_sans_serif_family("DejaVu Sans");
    let options = Options { fontdb: Arc::new(fonts), ..Options::default() };
    let tree = Tree::from_str(svg, &options).map_err(failed)?;
    let size = tree.size().to_int_size().scale_by(SCALE).ok_or_else(sizeless)?;
    let mut pixels = Pixmap::new(size.width(), size.height()).ok_or_else(sizeless)?;
    resvg::render(&tree, Transform::from_scale(SCALE, SCALE), &mut pixels.as_mut());
    pixels.encode_png().map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figure() -> Figure {
        let interval = |y: f64| Some(Interval { low: y - 0.04, high: y + 0.05 });
        let points = |base: f64| {
            let point = |n: u32| {
                let y = base + 0.08 * f64::from(n);
                Point { x: f64::from(1 << n), y, interval: interval(y) }
            };
            (0..4).map(point).collect()
        };
        let series =
            |name: &str, base, spread| Series { name: name.into(), points: points(base), spread };
        let panel = |title: &str, spread| Panel {
            title: title.into(),
            x: Axis::log("unmask steps", vec![]),
            y: Axis::share("accuracy"),
            series: vec![series("base", 0.1, spread), series("iteration <100>", 0.2, spread)],
            level: Some(("a level".into(), 0.34)),
        };
        Figure {
            title: "two & two".into(),
            panels: vec![panel("whiskers", Spread::Whiskers), panel("bands", Spread::Band)],
        }
    }

    #[test]
    fn a_figure_is_the_same_svg_every_time() {
        let text = svg(&figure()).unwrap();
        assert_eq!(text, svg(&figure()).unwrap());
        assert!(text.starts_with("<svg ") && text.trim_end().ends_with("</svg>"));
        for part in
            ["unmask steps", "accuracy", "base", "a level", "40 %", "whiskers", "bands", "&amp;"]
        {
            assert!(text.contains(part), "{part}");
        }
        assert!(!text.contains("<100>"), "text is escaped");
    }

    #[test]
    fn twelve_series_differ() {
        let look = |index| canvas((20, 20), |root| draw_marker(root, (10, 10), index)).unwrap();
        let looks: std::collections::BTreeSet<_> = (0..12).map(look).collect();
        assert_eq!(looks.len(), 12);
        let text = svg(&figure()).unwrap();
        // Four points and one in the legend, with whiskers and with bands.
        assert_eq!(text.matches("<circle").count(), 2 * 5);
    }

    #[test]
    fn points_without_a_place_are_left_out() {
        let mut odd = figure();
        let nowhere = [(f64::NAN, 0.2), (0.0, 0.2), (1.0, f64::INFINITY)];
        let points = nowhere.map(|(x, y)| Point { x, y, interval: None });
        odd.panels[0].series[0].points.extend(points);
        assert_eq!(svg(&odd).unwrap(), svg(&figure()).unwrap());
        odd.panels.iter_mut().for_each(|panel| panel.series.clear());
        assert!(svg(&odd).unwrap().contains("accuracy"), "an empty panel still has its axes");
    }
}
