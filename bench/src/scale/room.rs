//! Whether the machine has room for a point; without it the point is left out with a clear line.

use std::path::Path;

use crate::machine::{disk_free_bytes, files_max, memory_available_bytes};
use crate::units::grouped;

/// Disk that a card takes in its slab with a short secret, beside the secret itself, rounded up.
const CARD_DISK_BYTES: u64 = 112;
/// Disk that an order takes: in the log, in the order file, and twice in the worst moment of a fold.
const ORDER_DISK_BYTES: u64 = 3 * 64;
/// Memory that an order takes in the server, while its shard grows.
const ORDER_MEMORY_BYTES: u64 = 128;
/// Memory that a card takes: its bits in the server and in the oracle, rounded up.
const CARD_MEMORY_BYTES: u64 = 2;
/// Disk that any store takes, and that is left free: the log's segments above all.
const DISK_BYTES_LEAST: u64 = 2 << 30;
/// Memory that any run takes, and that is left free.
const MEMORY_BYTES_LEAST: u64 = 1 << 30;
/// Files that a process has open beside its connections.
const FILES_LEAST: u64 = 200;

/// What a point will take, roughly and not too little.
#[derive(Debug, Clone, Copy)]
pub struct Need {
    /// Cards imported in all.
    pub cards: u64,
    /// Bytes of each secret.
    pub secret_bytes: u16,
    /// Orders dealt in all.
    pub orders: u64,
    /// Connections open at once.
    pub connections: u64,
    /// SKUs: each has a slab of its own, which is a mapped and open file.
    pub skus: u64,
}

impl Need {
    /// Why there is no room, if there is none.
    pub fn missing(&self, directory: &Path) -> Option<String> {
        let disk = DISK_BYTES_LEAST
            + self.cards * (CARD_DISK_BYTES + u64::from(self.secret_bytes))
            + self.orders * ORDER_DISK_BYTES;
        let memory =
            MEMORY_BYTES_LEAST + self.cards * CARD_MEMORY_BYTES + self.orders * ORDER_MEMORY_BYTES;
        let files = FILES_LEAST + self.connections + self.skus;
        let short = |what: &str, need: u64, have: Option<u64>| {
            let have = have.filter(|&have| have < need)?;
            Some(format!(
                "needs {} MiB of {what}, and {} MiB are free",
                grouped(need >> 20),
                grouped(have >> 20)
            ))
        };
        short("disk", disk, disk_free_bytes(directory))
            .or_else(|| short("memory", memory, memory_available_bytes()))
            .or_else(|| {
                let have = files_max();
                (have < files).then(|| {
                    format!("needs {files} open files, and the limit is {have} (ulimit -n)")
                })
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_named() {
        let here = std::env::temp_dir();
        let need = |cards, orders, connections| Need {
            cards,
            secret_bytes: 32,
            orders,
            connections,
            skus: 1,
        };
        let missing = need(1 << 50, 0, 1).missing(&here).expect("no disk has it");
        assert!(missing.contains("of disk"), "{missing}");
        let missing = need(1, 1, 1 << 40).missing(&here);
        if let Some(missing) = missing {
            assert!(missing.contains("open files") || missing.contains("MiB"));
        }
    }
}
