//! The picture of growth: a row for each axis; rate, latency and memory beside each other.

use std::path::Path;

use plotters::coord::Shift;
use plotters::prelude::*;

use super::args::Axis;
use super::report::{Point, ScaleReport};
use crate::error::BenchError;
use crate::units::grouped;

const WIDTH_PX: u32 = 1200;
const ROW_HEIGHT_PX: u32 = 260;
const TITLE_HEIGHT_PX: u32 = 36;
const COLOUR: RGBColor = RGBColor(0, 90, 181);

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type DrawResult = Result<(), Box<dyn std::error::Error>>;

/// A figure that every point has.
struct Figure {
    name: &'static str,
    of: fn(&Point) -> f64,
}

const FIGURES: [Figure; 3] = [
    Figure {
        name: "orders/s",
        of: |point| point.load.per_s,
    },
    Figure {
        name: "P99, µs",
        of: |point| point.load.latency.p99_us,
    },
    Figure {
        name: "own memory, MiB",
        of: |point| point.memory.anonymous_bytes as f64 / f64::from(1 << 20),
    },
];

/// Draws all axes that have points.
pub fn draw(path: &Path, report: &ScaleReport) -> Result<(), BenchError> {
    try_draw(path, report).map_err(|error| BenchError::Io {
        what: format!("draw {}", path.display()),
        source: std::io::Error::other(error.to_string()),
    })
}

fn try_draw(path: &Path, report: &ScaleReport) -> DrawResult {
    let axes: Vec<(Axis, Vec<&Point>)> = Axis::ALL
        .into_iter()
        .map(|axis| (axis, report.along(axis)))
        .filter(|(_, points)| !points.is_empty())
        .collect();
    if axes.is_empty() {
        return Err("there is nothing to draw: no point was measured".into());
    }
    let height = TITLE_HEIGHT_PX + ROW_HEIGHT_PX * axes.len() as u32;
    let root = SVGBackend::new(path, (WIDTH_PX, height)).into_drawing_area();
    root.fill(&WHITE)?;
    let rows = root.titled(&report.engine, ("sans-serif", 18))?;
    for (row, (axis, points)) in rows.split_evenly((axes.len(), 1)).iter().zip(&axes) {
        for (panel, figure) in row.split_evenly((1, FIGURES.len())).iter().zip(&FIGURES) {
            draw_panel(panel, *axis, figure, points)?;
        }
    }
    root.present()?;
    Ok(())
}

/// One figure along one axis. It begins at 0, so that a small change looks small.
fn draw_panel(area: &Area<'_>, axis: Axis, figure: &Figure, points: &[&Point]) -> DrawResult {
    let values: Vec<(f64, f64)> = points
        .iter()
        .map(|point| (point.size as f64, (figure.of)(point)))
        .collect();
    let (low, high) = (
        values.iter().map(|value| value.0).fold(f64::MAX, f64::min),
        values.iter().map(|value| value.0).fold(1.0, f64::max),
    );
    let top = values.iter().map(|value| value.1).fold(0.0, f64::max);
    let mut chart = ChartBuilder::on(area)
        .margin(10)
        .x_label_area_size(36)
        .y_label_area_size(76)
        .build_cartesian_2d(
            (low * 0.7..high * 1.4).log_scale(),
            0.0..(top * 1.15).max(1e-3),
        )?;
    chart
        .configure_mesh()
        .x_desc(axis.name())
        .y_desc(figure.name)
        .x_labels(5)
        .y_labels(6)
        .x_label_formatter(&|size| grouped(*size as u64))
        .y_label_formatter(&|value| grouped(*value as u64))
        .max_light_lines(0)
        .draw()?;
    chart.draw_series(LineSeries::new(
        values.iter().copied(),
        COLOUR.stroke_width(2),
    ))?;
    chart.draw_series(
        values
            .iter()
            .map(|&value| Circle::new(value, 3, COLOUR.filled())),
    )?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::{FileSystem, Machine};
    use crate::report::Latency;
    use crate::scale::life::Load;

    #[test]
    fn every_axis_gets_its_row() {
        let load = Load {
            orders: 1,
            measured_s: 1.0,
            per_s: 1e6,
            latency: Latency::of(&crate::recorder::latency_histogram()),
            server_cores: None,
        };
        let point = |axis, size| Point::new(axis, size, load.clone());
        let mut report = ScaleReport {
            machine: Machine::detect(),
            file_system: FileSystem::of(Path::new("/")),
            engine: "croupier".into(),
            duration_s: 1.0,
            in_flight: 1,
            stock: 1,
            secret_bytes: 32,
            points: vec![
                point(Axis::Cards, 1000),
                point(Axis::Cards, 100_000),
                point(Axis::Skus, 1),
            ],
            holds: Vec::new(),
            lanes: Vec::new(),
            left_out: Vec::new(),
            oracle: Default::default(),
        };
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("growth.svg");
        draw(&path, &report).expect("it is drawn");
        let svg = std::fs::read_to_string(&path).expect("it is there");
        assert!(
            svg.contains("cards in stock") && svg.contains("SKUs") && !svg.contains("orders kept")
        );
        report.points.clear();
        assert!(draw(&path, &report).is_err());
    }
}
