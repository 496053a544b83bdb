//! What all charts share: a panel with a frame, scales, ticks and lines, as SVG.
//!
//! Colours are classes that the page's style sheet knows, so that charts follow light and dark.
//! All text is escaped.

use std::fmt::Write as _;

/// Width of a panel in its own units; the page scales it.
pub(super) const WIDTH: f64 = 460.0;
/// Height of a panel.
pub(super) const HEIGHT: f64 = 290.0;
const LEFT: f64 = 62.0;
const RIGHT: f64 = 14.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 44.0;

/// From a range of values to a range of places.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scale {
    from: (f64, f64),
    to: (f64, f64),
}

impl Scale {
    pub(super) fn new(from: (f64, f64), to: (f64, f64)) -> Self {
        // A range without width would put everything nowhere.
        let from = if (from.1 - from.0).abs() < 1e-12 { (from.0 - 0.5, from.1 + 0.5) } else { from };
        Self { from, to }
    }

    pub(super) fn at(&self, value: f64) -> f64 {
        let share = (value - self.from.0) / (self.from.1 - self.from.0);
        // Far outside is as good as a little outside, and keeps the file small.
        let share = if share.is_finite() { share.clamp(-2.0, 3.0) } else { 0.0 };
        self.to.0 + share * (self.to.1 - self.to.0)
    }
}

/// A panel: a chart with an x and a y axis.
pub(super) struct Panel {
    /// From values to places across.
    pub x: Scale,
    /// From values to places down.
    pub y: Scale,
    body: String,
    clip: String,
    about: String,
}

impl Panel {
    /// An empty panel. `about` describes it to those who can't see it; `id` is unique on the page.
    pub(super) fn new(id: &str, about: &str, x: (f64, f64), y: (f64, f64)) -> Self {
        Self {
            x: Scale::new(x, (LEFT, WIDTH - RIGHT)),
            y: Scale::new(y, (HEIGHT - BOTTOM, TOP)),
            body: String::new(),
            clip: format!("clip-{id}"),
            about: about.to_owned(),
        }
    }

    /// A tick on the x axis, with a faint line up.
    pub(super) fn x_tick(&mut self, value: f64, label: &str) {
        let (x, bottom) = (self.x.at(value), HEIGHT - BOTTOM);
        self.element(&format!(r#"<path class="grid" d="M{x:.1} {TOP}V{bottom}"/>"#));
        self.label(x, bottom + 17.0, "middle", "tick", label);
    }

    /// A tick on the y axis, with a faint line across.
    pub(super) fn y_tick(&mut self, value: f64, label: &str) {
        let (y, right) = (self.y.at(value), WIDTH - RIGHT);
        self.element(&format!(r#"<path class="grid" d="M{LEFT} {y:.1}H{right}"/>"#));
        self.label(LEFT - 8.0, y + 4.0, "end", "tick", label);
    }

    /// What the x axis shows, with its unit.
    pub(super) fn x_title(&mut self, title: &str) {
        self.label(f64::midpoint(LEFT, WIDTH - RIGHT), HEIGHT - 8.0, "middle", "axis", title);
    }

    /// A line across at a value, with a label at its right end: above it, or below if it lies below zero,
    /// where the line of no difference is above.
    pub(super) fn rule(&mut self, value: f64, class: &str, label: &str) {
        let (y, right) = (self.y.at(value), WIDTH - RIGHT);
        self.element(&format!(r#"<path class="rule {class}" d="M{LEFT} {y:.1}H{right}"/>"#));
        if !label.is_empty() {
            let beside = if value < 0.0 { y + 15.0 } else { y - 6.0 };
            self.label(right - 2.0, beside, "end", "tick note", label);
        }
    }

    /// A line up at a value.
    pub(super) fn upright(&mut self, value: f64, class: &str) {
        let (x, bottom) = (self.x.at(value), HEIGHT - BOTTOM);
        self.element(&format!(r#"<path class="rule {class}" d="M{x:.1} {TOP}V{bottom}"/>"#));
    }

    /// A line through points, in values.
    pub(super) fn line(&mut self, class: &str, points: &[(f64, f64)]) {
        let path = self.path(points.iter().copied());
        self.clipped(&format!(r#"<path class="line {class}" d="{path}"/>"#));
    }

    /// The area between two lines over the same x.
    pub(super) fn band(&mut self, class: &str, points: &[(f64, f64, f64)]) {
        let there = points.iter().map(|(x, low, _)| (*x, *low));
        let back = points.iter().rev().map(|(x, _, high)| (*x, *high));
        let path = self.path(there.chain(back));
        self.clipped(&format!(r#"<path class="band {class}" d="{path}Z"/>"#));
    }

    /// A dot at a point, in values.
    pub(super) fn dot(&mut self, class: &str, x: f64, y: f64) {
        let (x, y) = (self.x.at(x), self.y.at(y));
        self.clipped(&format!(r#"<circle class="dot {class}" cx="{x:.1}" cy="{y:.1}" r="3.5"/>"#));
    }

    /// The chart.
    pub(super) fn svg(self) -> String {
        let Self { body, clip, about, x: _, y: _ } = self;
        let (width, height) = (WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM);
        format!(
            r#"<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{}"><clipPath id="{clip}"><rect x="{LEFT}" y="{TOP}" width="{width}" height="{height}"/></clipPath>{body}</svg>"#,
            escaped(&about)
        )
    }

    fn path(&self, points: impl Iterator<Item = (f64, f64)>) -> String {
        let mut path = String::new();
        for (x, y) in points {
            let command = if path.is_empty() { 'M' } else { 'L' };
            // Writing to a string never fails.
            let _ = write!(path, "{command}{:.1} {:.1}", self.x.at(x), self.y.at(y));
        }
        path
    }

    fn label(&mut self, x: f64, y: f64, anchor: &str, class: &str, text: &str) {
        let text = escaped(text);
        self.element(&format!(r#"<text class="{class}" x="{x:.1}" y="{y:.1}" text-anchor="{anchor}">{text}</text>"#));
    }

    fn clipped(&mut self, element: &str) {
        let clip = self.clip.clone();
        self.element(&format!(r#"<g clip-path="url(#{clip})">{element}</g>"#));
    }

    fn element(&mut self, element: &str) {
        self.body.push_str(element);
    }
}

/// Text for SVG: nothing in it is markup.
pub(super) fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_without_width_is_in_the_middle() {
        let scale = Scale::new((5.0, 5.0), (0.0, 100.0));
        assert!((scale.at(5.0) - 50.0).abs() < 1e-9);
        assert!(scale.at(f64::NAN).is_finite());
    }

    #[test]
    fn what_is_markup_is_escaped() {
        assert_eq!(escaped("a<b>&\"'"), "a&lt;b&gt;&amp;&quot;&#39;");
    }
}
