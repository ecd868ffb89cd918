//! Fills the stock before a run, so that no order of it is refused for want of cards.

use std::rc::Rc;
use std::sync::Arc;

use croupier_protocol::SkuId;

use super::args::{RunArgs, Step};
use crate::control::Control;
use crate::driver::Pacing;
use crate::error::BenchError;
use crate::progress::Progress;
use crate::report::ImportReport;
use crate::stock::{Budget, CARDS_PER_SKU_MAX, SecretShape, cards_needed};
use crate::units::grouped;
use crate::workload::Workload;

/// The stock of one run.
#[derive(Debug)]
pub struct Stocking {
    args: Rc<RunArgs>,
    control: Control,
    shape: SecretShape,
    sku_ids: Vec<SkuId>,
    /// Number of the next card of each SKU.
    next_numbers: Vec<u32>,
    budget: Arc<Budget>,
    report: ImportReport,
}

/// Orders that open loops issue at most, warm-ups included.
pub fn open_orders(steps: &[Step], issue_share: f64) -> f64 {
    let orders = |step: &Step| match step.pacing {
        Pacing::Closed => 0.0,
        Pacing::Open { orders_per_s, .. } => {
            orders_per_s * (step.warmup + step.duration).as_secs_f64()
        }
    };
    let all: f64 = steps.iter().map(orders).sum();
    // The schedule is random with Poisson arrivals and the mix is random anyway: six deviations, and some.
    let expected = all * issue_share;
    (expected + 6.0 * all.sqrt() + 1000.0).min(all + 6.0 * all.sqrt() + 1000.0)
}

impl Stocking {
    /// Nothing is imported yet.
    pub fn new(
        args: Rc<RunArgs>,
        control: Control,
        shape: SecretShape,
    ) -> Result<Self, BenchError> {
        let skus = args.skus as usize;
        Ok(Self {
            args,
            control,
            shape,
            sku_ids: Vec::new(),
            next_numbers: vec![0; skus],
            budget: Arc::new(Budget::new(skus)),
            report: ImportReport::default(),
        })
    }

    /// Goes on with another connection to the same store: it was started anew.
    pub fn reconnect(&mut self, control: Control) {
        self.control = control;
    }

    /// Imports what a number of orders needs.
    pub fn import_for(&mut self, orders: f64) -> Result<(), BenchError> {
        let skus = self.args.skus as usize;
        let needed = (0..skus)
            .map(|index| {
                let share = Workload::sku_share(skus, self.args.hot_share, index);
                cards_needed(orders, share, self.args.quantity)
            })
            .collect();
        self.import(needed)
    }

    /// Imports a number of cards, spread over the SKUs as the orders will be.
    pub fn import_evenly(&mut self, cards: u64) -> Result<(), BenchError> {
        let skus = self.args.skus as usize;
        let share = |index| {
            (cards as f64 * Workload::sku_share(skus, self.args.hot_share, index)).ceil() as u64
        };
        self.import((0..skus).map(share).collect())
    }

    /// Imports nothing: orders what is there, until the server refuses.
    pub fn use_what_is_there(&mut self) -> Result<(), BenchError> {
        let known = self.control.skus()?;
        for index in 0..self.args.skus as usize {
            let name = self.args.sku_name(index);
            let row = known.iter().find(|row| row.name == name).ok_or_else(|| {
                BenchError::Usage(format!(
                    "--cards 0 uses the stock that is there, but there is no SKU {name}"
                ))
            })?;
            self.sku_ids.push(SkuId(row.sku));
            self.budget
                .add(index, CARDS_PER_SKU_MAX * u64::from(u16::MAX));
        }
        Ok(())
    }

    fn import(&mut self, needed: Vec<u64>) -> Result<(), BenchError> {
        let total: u64 = needed.iter().sum();
        let mut progress = Progress::new(format!("import of {} cards", grouped(total)));
        let mut acknowledged = 0;
        for (index, &cards) in needed.iter().enumerate() {
            let first = self.next_numbers[index];
            let end = u64::from(first) + cards;
            if end > CARDS_PER_SKU_MAX {
                let text = format!(
                    "{} cards of one SKU are too many: shorten the run or say --cards",
                    grouped(end)
                );
                return Err(BenchError::Usage(text));
            }
            let imported = self.control.import(
                &self.args.sku_name(index),
                index as u16,
                first..end as u32,
                &self.shape,
                |rows| {
                    acknowledged += rows;
                    progress.say(|| format!("{} received", grouped(acknowledged)));
                },
            )?;
            if self.sku_ids.len() == index {
                self.sku_ids.push(SkuId(imported.sku));
            }
            self.next_numbers[index] = end as u32;
            self.budget.add(index, imported.cards);
            self.report.cards += imported.cards;
            self.report.seconds += imported.seconds;
        }
        Ok(())
    }

    /// Numeric ids of the SKUs, by their index in the run.
    pub fn sku_ids(&self) -> &[SkuId] {
        &self.sku_ids
    }

    /// How secrets look.
    pub fn shape(&self) -> &SecretShape {
        &self.shape
    }

    /// What the stock is good for.
    pub fn budget(&self) -> Arc<Budget> {
        self.budget.clone()
    }

    /// What was imported so far.
    pub fn report(&self) -> ImportReport {
        self.report.clone()
    }
}
