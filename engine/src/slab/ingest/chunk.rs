//! Rows of one size class that wait to become a slab. Their secrets are wiped when the chunk goes.

use croupier_protocol::{ImportRow, LABEL_BYTES_MAX, RejectReason};
use zerocopy::IntoBytes;
use zeroize::Zeroize;

use super::IngestLimits;
use super::dedupe::KeptPrint;
use crate::slab::layout::{AMOUNT_NONE, SlotEntryRaw, TAG_BYTES};

/// Secrets lie in blocks of this size. A block never grows, because growing would leave a copy behind unwiped.
const BLOCK_BYTES: usize = 256 << 10;

/// A place for secrets; wiped when dropped. Words, so that wiping takes eight bytes at a time.
struct SecretBlock(Box<[u64]>);

impl SecretBlock {
    fn new() -> Self {
        Self(vec![0; BLOCK_BYTES / 8].into())
    }
}

impl Drop for SecretBlock {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

/// What is kept of a row besides its secret.
struct RowHead {
    line: u64,
    expires_at_s: u64,
    premium_e4: i64,
    cost_e4: i64,
    /// Across all blocks.
    secret_offset: u32,
    label_offset: u32,
    secret_bytes: u16,
    label_bytes: u16,
}

pub(super) struct Chunk {
    class_bytes: u32,
    rows: Vec<RowHead>,
    blocks: Vec<SecretBlock>,
    /// Bytes used of the last block.
    block_filled: usize,
    labels: Vec<u8>,
}

impl Chunk {
    pub(super) fn new(class_bytes: u32) -> Self {
        Self {
            class_bytes,
            rows: Vec::new(),
            blocks: Vec::new(),
            block_filled: BLOCK_BYTES,
            labels: Vec::new(),
        }
    }

    pub(super) fn class_bytes(&self) -> u32 {
        self.class_bytes
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// How many rows; they are numbered from 0 in the order they came.
    pub(super) fn rows(&self) -> u32 {
        self.rows.len() as u32
    }

    /// When the first row expires, in Unix seconds; 0 = none does.
    pub(super) fn expires_from_s(&self) -> u64 {
        let expiries = self.rows.iter().map(|row| row.expires_at_s);
        expiries.filter(|&expires| expires != 0).min().unwrap_or(0)
    }

    /// The labels section of the slab.
    pub(super) fn labels(&self) -> &[u8] {
        &self.labels
    }

    pub(super) fn buffered_bytes(&self) -> u64 {
        let rows = self.rows.len() * size_of::<RowHead>();
        (rows + self.blocks.len() * BLOCK_BYTES + self.labels.len()) as u64
    }

    /// Whether a row more might break a limit.
    pub(super) fn is_full(&self, limits: &IngestLimits) -> bool {
        let rows = self.rows.len() as u64;
        let slot_bytes = u64::from(self.class_bytes) + TAG_BYTES as u64;
        rows >= u64::from(limits.slab_cards_max)
            || (rows + 1) * slot_bytes > limits.slab_sealed_bytes_max
            || (self.labels.len() + LABEL_BYTES_MAX) as u64 > limits.slab_labels_bytes_max
    }

    /// Adds a row whose lengths have been checked; returns by how many bytes the chunk grew.
    pub(super) fn push(&mut self, row: &ImportRow<'_>) -> u64 {
        let before = self.buffered_bytes();
        let secret_offset = self.put_secret(row.secret);
        let label_offset = put_label(&mut self.labels, self.rows.last(), row.label);
        self.rows.push(RowHead {
            line: row.line,
            expires_at_s: row.expires_at_s,
            premium_e4: row.premium_e4.unwrap_or(AMOUNT_NONE),
            cost_e4: row.cost_e4.unwrap_or(AMOUNT_NONE),
            secret_offset,
            label_offset,
            secret_bytes: row.secret.len() as u16,
            label_bytes: row.label.len() as u16,
        });
        self.buffered_bytes() - before
    }

    fn put_secret(&mut self, secret: &[u8]) -> u32 {
        if self.block_filled + secret.len() > BLOCK_BYTES {
            self.blocks.push(SecretBlock::new());
            self.block_filled = 0;
        }
        let first = self.block_filled;
        self.block_filled += secret.len();
        let block = self.blocks.last_mut().expect("one was just made");
        block.0.as_mut_bytes()[first..self.block_filled].copy_from_slice(secret);
        let offset = (self.blocks.len() - 1) * BLOCK_BYTES + first;
        u32::try_from(offset).expect("a chunk's limits are far below 4 GiB")
    }

    pub(super) fn line(&self, row: u32) -> u64 {
        self.rows[row as usize].line
    }

    #[inline]
    pub(super) fn secret(&self, row: u32) -> &[u8] {
        let head = &self.rows[row as usize];
        let offset = head.secret_offset as usize;
        let first = offset % BLOCK_BYTES;
        let block = self.blocks[offset / BLOCK_BYTES].0.as_bytes();
        &block[first..first + usize::from(head.secret_bytes)]
    }

    /// The slot table's entry of a row.
    pub(super) fn entry(&self, row: u32) -> SlotEntryRaw {
        let head = &self.rows[row as usize];
        SlotEntryRaw {
            expires_at_s: head.expires_at_s.into(),
            premium_e4: head.premium_e4.into(),
            cost_e4: head.cost_e4.into(),
            label_offset: head.label_offset.into(),
            label_bytes: head.label_bytes.into(),
            reserved: 0.into(),
        }
    }

    /// Takes rows out; the others keep their order and move up. `kept` is told the new numbers.
    pub(super) fn drop_rows(&mut self, dropped: &[(u32, RejectReason)], kept: &mut [KeptPrint]) {
        if dropped.is_empty() {
            return;
        }
        let mut is_dropped = vec![false; self.rows.len()];
        for &(row, _) in dropped {
            is_dropped[row as usize] = true;
        }
        let mut kept_before = 0;
        let new_row: Vec<u32> = is_dropped
            .iter()
            .map(|&gone| {
                kept_before += u32::from(!gone);
                kept_before.wrapping_sub(1)
            })
            .collect();
        for print in kept {
            print.row = new_row[print.row as usize];
        }
        let mut dropped = is_dropped.into_iter();
        self.rows
            .retain(|_| !dropped.next().expect("one flag a row"));
        self.pack_labels();
    }

    /// Leaves out the labels of rows that are gone.
    fn pack_labels(&mut self) {
        let all = std::mem::take(&mut self.labels);
        for index in 0..self.rows.len() {
            let (before, rest) = self.rows.split_at_mut(index);
            let head = &mut rest[0];
            let first = head.label_offset as usize;
            let label = &all[first..first + usize::from(head.label_bytes)];
            head.label_offset = put_label(&mut self.labels, before.last(), label);
        }
    }
}

/// Appends a label unless the row before has the same one, as most imports give all rows one label.
fn put_label(labels: &mut Vec<u8>, before: Option<&RowHead>, label: &[u8]) -> u32 {
    if label.is_empty() {
        return 0;
    }
    if let Some(before) = before {
        let first = before.label_offset as usize;
        if labels[first..first + usize::from(before.label_bytes)] == *label {
            return before.label_offset;
        }
    }
    let offset = labels.len() as u32;
    labels.extend_from_slice(label);
    offset
}
