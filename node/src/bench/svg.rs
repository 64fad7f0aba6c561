//! Latency against offered rate, drawn: both axes logarithmic, one line a broker.

use std::fmt::Write;

use super::peers::Peer;
use super::report::Point;

const WIDTH: f64 = 900.0;
const HEIGHT: f64 = 560.0;
const LEFT: f64 = 80.0;
const RIGHT: f64 = 150.0;
const TOP: f64 = 50.0;
const BOTTOM: f64 = 60.0;

/// Told apart in print and by people who do not see red or green.
const COLOURS: [&str; 5] = ["#0072b2", "#999999", "#d55e00", "#009e73", "#cc79a7"];

/// The picture.
pub(super) fn draw(title: &str, curves: &[(Peer, Vec<Point>)]) -> String {
    let points = || curves.iter().flat_map(|(_, points)| points);
    let rates = Axis::over(points().map(|point| point.offered));
    let times = Axis::over(points().flat_map(|point| [point.p50_ms, point.p99_ms]).flatten());
    let x = |rate: f64| LEFT + rates.place(rate) * (WIDTH - LEFT - RIGHT);
    let y = |ms: f64| HEIGHT - BOTTOM - times.place(ms) * (HEIGHT - TOP - BOTTOM);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
         font-family=\"sans-serif\" font-size=\"13\">\n\
         <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"white\"/>\n\
         <text x=\"{LEFT}\" y=\"28\" font-size=\"16\">{title}</text>\n"
    );
    for rate in rates.ticks() {
        let (x, foot) = (x(rate), HEIGHT - BOTTOM);
        let _ = writeln!(
            svg,
            "<line x1=\"{x:.1}\" y1=\"{TOP}\" x2=\"{x:.1}\" y2=\"{foot}\" stroke=\"#ddd\"/>\
             <text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
            foot + 20.0,
            short(rate)
        );
    }
    for ms in times.ticks() {
        let (y, edge) = (y(ms), WIDTH - RIGHT);
        let _ = writeln!(
            svg,
            "<line x1=\"{LEFT}\" y1=\"{y:.1}\" x2=\"{edge}\" y2=\"{y:.1}\" stroke=\"#ddd\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            LEFT - 8.0,
            y + 4.0,
            short(ms)
        );
    }
    for (at, (peer, points)) in curves.iter().enumerate() {
        let colour = COLOURS[at % COLOURS.len()];
        for (quantile, dash) in [(0, "5 4"), (1, "none")] {
            let path: Vec<String> = points
                .iter()
                .filter_map(|point| {
                    let ms = if quantile == 0 { point.p50_ms? } else { point.p99_ms? };
                    Some(format!("{:.1},{:.1}", x(point.offered), y(ms)))
                })
                .collect();
            let _ = writeln!(
                svg,
                "<polyline fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\" \
                 stroke-dasharray=\"{dash}\" points=\"{}\"/>",
                path.join(" ")
            );
        }
        let (x, y) = (WIDTH - RIGHT + 15.0, TOP + 20.0 + 22.0 * at as f64);
        let _ = writeln!(
            svg,
            "<line x1=\"{x}\" y1=\"{y}\" x2=\"{}\" y2=\"{y}\" stroke=\"{colour}\" \
             stroke-width=\"3\"/><text x=\"{}\" y=\"{}\">{}</text>",
            x + 22.0,
            x + 28.0,
            y + 4.0,
            peer.name()
        );
    }
    let _ = writeln!(
        svg,
        "<text x=\"{:.1}\" y=\"{}\" text-anchor=\"middle\">messages offered per second</text>\n\
         <text transform=\"translate(20 {:.1}) rotate(-90)\" text-anchor=\"middle\">latency in ms: \
         p99, dashed p50</text>\n</svg>",
        LEFT + (WIDTH - LEFT - RIGHT) / 2.0,
        HEIGHT - 15.0,
        TOP + (HEIGHT - TOP - BOTTOM) / 2.0
    );
    svg
}

/// A logarithmic axis over whole powers of ten.
struct Axis {
    low: f64,
    high: f64,
}

impl Axis {
    fn over(values: impl Iterator<Item = f64>) -> Self {
        let logs = values.filter(|value| *value > 0.0).map(f64::log10);
        let (low, high) = logs.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), log| {
            (low.min(log.floor()), high.max(log.ceil()))
        });
        if low < high { Self { low, high } } else { Self { low: 0.0, high: 1.0 } }
    }

    /// From 0 to 1.
    fn place(&self, value: f64) -> f64 {
        (value.max(f64::MIN_POSITIVE).log10() - self.low) / (self.high - self.low)
    }

    fn ticks(&self) -> impl Iterator<Item = f64> + use<> {
        (self.low as i32..=self.high as i32).map(|power| 10f64.powi(power))
    }
}

fn short(value: f64) -> String {
    if value >= 1e6 {
        format!("{}M", value / 1e6)
    } else if value >= 1e3 {
        format!("{}k", value / 1e3)
    } else {
        format!("{value}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_broker_has_its_lines_and_name_in_the_picture() {
        let point = |offered, ms| Point {
            offered,
            delivered: offered,
            p50_ms: Some(ms / 2.0),
            p99_ms: Some(ms),
        };
        let curves = vec![
            (Peer::Verge, vec![point(1_000.0, 0.2), point(90_000.0, 3.0)]),
            (Peer::Mosquitto, vec![point(500.0, 0.4)]),
        ];
        let svg = draw("pairs", &curves);
        assert_eq!(svg.matches("<polyline").count(), 4);
        assert!(
            svg.contains(">Verge<") && svg.contains(">Mosquitto<") && svg.ends_with("</svg>\n")
        );
        assert!(svg.contains(">100k<") && svg.contains(">0.1<"), "{svg}");
        assert!(draw("nothing", &[]).contains("</svg>"));
    }
}
