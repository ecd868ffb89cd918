//! One point of an axis: a store's whole life at one size.

use super::args::{Axis, ScaleArgs};
use super::life::Life;
use super::report::Point;
use crate::error::BenchError;

/// Measures a store that has just been made.
pub fn measure(
    life: &mut Life,
    args: &ScaleArgs,
    axis: Axis,
    size: u64,
) -> Result<Point, BenchError> {
    match axis {
        Axis::Holds | Axis::Lanes => unreachable!("they have points of another kind"),
        Axis::Cards => cards(life, size),
        Axis::Orders => orders(life, size),
        Axis::Skus => skus(life, size),
        Axis::Connections => connections(life, args, size as u32),
    }
}

fn cards(life: &mut Life, size: u64) -> Result<Point, BenchError> {
    life.stock_up()?;
    let import = life.imported();
    // Started anew, so that what the import has left in the allocator is not taken for stock.
    let restart = life.restart()?;
    let memory = life.memory();
    let load = life.load(true)?;
    let memory_loaded = life.memory();
    // The second stop folds the orders, and the second load leaves a log to recover from.
    let fold = life.restart()?;
    life.load(true)?;
    Ok(Point {
        import: Some(import),
        memory,
        memory_loaded,
        restart: Some(restart),
        fold: Some(fold),
        recovery: Some(life.crash()?),
        ..Point::new(Axis::Cards, size, load)
    })
}

fn orders(life: &mut Life, size: u64) -> Result<Point, BenchError> {
    life.deal(size)?;
    let grown = life.memory();
    let restart = life.restart()?;
    let memory = life.memory();
    let load = life.load(true)?;
    Ok(Point {
        memory,
        memory_loaded: grown,
        restart: Some(restart.clone()),
        fold: Some(restart),
        recovery: Some(life.crash()?),
        ..Point::new(Axis::Orders, size, load)
    })
}

fn skus(life: &mut Life, size: u64) -> Result<Point, BenchError> {
    life.stock_up()?;
    let import = life.imported();
    let restart = life.restart()?;
    let memory = life.memory();
    let load = life.load(size == 1)?;
    Ok(Point {
        import: Some(import),
        memory,
        memory_loaded: life.memory(),
        restart: Some(restart),
        recovery: Some(life.crash()?),
        ..Point::new(Axis::Skus, size, load)
    })
}

fn connections(life: &mut Life, args: &ScaleArgs, size: u32) -> Result<Point, BenchError> {
    life.stock_up()?;
    life.restart()?;
    life.reshape(size, args.pipeline(size));
    let memory = life.memory_with_idle(size)?;
    let load = life.load(true)?;
    Ok(Point {
        memory,
        memory_loaded: life.memory(),
        ..Point::new(Axis::Connections, size.into(), load)
    })
}
