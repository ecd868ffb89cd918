//! Pictures of a run, as SVG.

use std::path::Path;

use hdrhistogram::Histogram;
use plotters::prelude::*;

use super::StepReport;
use crate::error::BenchError;

const WIDTH_PX: u32 = 960;
const HEIGHT_PX: u32 = 540;
const COLOURS: [RGBColor; 4] = [
    RGBColor(0, 90, 181),
    RGBColor(220, 50, 32),
    RGBColor(26, 133, 80),
    RGBColor(130, 80, 160),
];

/// Points of a latency distribution: nines on the x axis (1 = 90 %, 2 = 99 %, …), microseconds on the y axis.
fn points_by_nines(histogram: &Histogram<u64>) -> Vec<(f64, f64)> {
    let nines_max = (histogram.len().max(10) as f64).log10();
    let steps = 200;
    (0..=steps)
        .map(|step| {
            let nines = nines_max * f64::from(step) / f64::from(steps);
            let value = histogram
                .value_at_quantile(1.0 - 10f64.powf(-nines))
                .min(histogram.max());
            (nines, value as f64 / 1e3)
        })
        .collect()
}

/// Draws the latency distribution of each named histogram (of nanoseconds), percentiles by their nines.
pub fn draw_distribution(
    path: &Path,
    title: &str,
    series: &[(String, &Histogram<u64>)],
) -> Result<(), BenchError> {
    let lines: Vec<(String, Vec<(f64, f64)>)> = series
        .iter()
        .map(|(name, histogram)| (name.clone(), points_by_nines(histogram)))
        .collect();
    let picture = Picture {
        title,
        x: "percentile",
        y: "latency, µs",
        x_log: false,
        x_label: |&nines| match nines {
            nines if nines < 0.05 => "0 %".into(),
            nines => format!("{} %", trimmed(100.0 - 10f64.powf(2.0 - nines))),
        },
    };
    picture.draw(path, &lines)
}

/// Draws P50, P99 and P99.9 over the throughput of the steps.
pub fn draw_sweep(path: &Path, title: &str, steps: &[StepReport]) -> Result<(), BenchError> {
    let curve = |name: &str, of: fn(&super::Latency) -> f64| {
        let points = steps.iter().filter_map(|step| {
            Some((step.throughput_per_s, of(&step.operations.first()?.latency)))
        });
        (name.to_string(), points.collect::<Vec<_>>())
    };
    let lines = [
        curve("P50", |latency| latency.p50_us),
        curve("P99", |latency| latency.p99_us),
        curve("P99.9", |latency| latency.p999_us),
    ];
    let picture = Picture {
        title,
        x: "orders answered per second",
        y: "latency, µs",
        x_log: true,
        x_label: |&per_s| crate::units::grouped(per_s as u64),
    };
    picture.draw(path, &lines)
}

fn trimmed(number: f64) -> String {
    let text = format!("{number:.6}");
    text.trim_end_matches('0').trim_end_matches('.').to_string()
}

/// What every picture of the bench has; the y axis is logarithmic, as latencies are.
struct Picture<'a> {
    title: &'a str,
    x: &'a str,
    y: &'a str,
    x_log: bool,
    x_label: fn(&f64) -> String,
}

impl Picture<'_> {
    fn draw(&self, path: &Path, lines: &[(String, Vec<(f64, f64)>)]) -> Result<(), BenchError> {
        self.try_draw(path, lines).map_err(|error| {
            let source = std::io::Error::other(error.to_string());
            BenchError::Io {
                what: format!("draw {}", path.display()),
                source,
            }
        })
    }

    fn try_draw(
        &self,
        path: &Path,
        lines: &[(String, Vec<(f64, f64)>)],
    ) -> Result<(), Box<dyn std::error::Error>> {
        let points = || lines.iter().flat_map(|(_, points)| points.iter().copied());
        let span = |of: fn((f64, f64)) -> f64| {
            points()
                .map(of)
                .fold((f64::MAX, f64::MIN), |(low, high), value| {
                    (low.min(value), high.max(value))
                })
        };
        let (x_low, x_high) = span(|(x, _)| x);
        let (y_low, y_high) = span(|(_, y)| y);
        if x_low > x_high {
            return Err("there is nothing to draw: no order was answered".into());
        }
        let y_range = (y_low.max(0.1) * 0.8..y_high.max(1.0) * 1.3).log_scale();

        let root = SVGBackend::new(path, (WIDTH_PX, HEIGHT_PX)).into_drawing_area();
        root.fill(&WHITE)?;
        let mut builder = ChartBuilder::on(&root);
        builder
            .caption(self.title, ("sans-serif", 18))
            .margin(16)
            .x_label_area_size(44)
            .y_label_area_size(72);
        // The two axes have types of their own, so the chart is built once for each.
        if self.x_log {
            let mut chart = builder.build_cartesian_2d(
                (x_low.max(1.0) * 0.8..x_high.max(2.0) * 1.3).log_scale(),
                y_range,
            )?;
            self.mesh(&mut chart)?;
            draw_lines(&mut chart, lines)?;
        } else {
            let mut chart = builder.build_cartesian_2d(x_low..x_high, y_range)?;
            self.mesh(&mut chart)?;
            draw_lines(&mut chart, lines)?;
        }
        root.present()?;
        Ok(())
    }

    fn mesh<X>(&self, chart: &mut Chart<'_, X>) -> Result<(), Box<dyn std::error::Error>>
    where
        X: Ranged<ValueType = f64> + plotters::coord::ranged1d::ValueFormatter<f64>,
    {
        chart
            .configure_mesh()
            .x_desc(self.x)
            .y_desc(self.y)
            .x_labels(8)
            .x_label_formatter(&self.x_label)
            .y_label_formatter(&|us| trimmed(*us))
            .light_line_style(WHITE)
            .draw()?;
        Ok(())
    }
}

type LogRange = plotters::coord::combinators::LogCoord<f64>;
type Chart<'a, X> = ChartContext<'a, SVGBackend<'a>, Cartesian2d<X, LogRange>>;

fn draw_lines<X: Ranged<ValueType = f64>>(
    chart: &mut Chart<'_, X>,
    lines: &[(String, Vec<(f64, f64)>)],
) -> Result<(), Box<dyn std::error::Error>> {
    for (index, (name, points)) in lines.iter().enumerate() {
        let colour = COLOURS[index % COLOURS.len()];
        let few = points.len() < 50;
        chart
            .draw_series(LineSeries::new(
                points.iter().copied(),
                colour.stroke_width(2),
            ))?
            .label(name.clone())
            .legend(move |(x, y)| {
                PathElement::new(vec![(x, y), (x + 20, y)], colour.stroke_width(2))
            });
        if few {
            chart.draw_series(
                points
                    .iter()
                    .map(|&point| Circle::new(point, 3, colour.filled())),
            )?;
        }
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK.mix(0.3))
        .draw()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_distribution_is_drawn() {
        let mut histogram = crate::recorder::latency_histogram();
        (1..=100_000u64).for_each(|n| histogram.record(n * 17).expect("within bounds"));
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("latency.svg");
        draw_distribution(&path, "test", &[("issue".into(), &histogram)]).expect("it is drawn");
        let svg = std::fs::read_to_string(&path).expect("it is there");
        assert!(
            svg.starts_with("<svg") && svg.contains("polyline") && svg.contains("99 %"),
            "{svg}"
        );
    }

    #[test]
    fn nothing_to_draw_is_an_error() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        assert!(draw_sweep(&directory.path().join("empty.svg"), "test", &[]).is_err());
    }
}
