//! Order files, as checkpoints list them.

use std::path::Path;

use croupier_engine::checkpoint::{OrderFile, OrderFileReader, OrderFileWriter};
use croupier_engine::disk::memory::MemoryDisk;
use croupier_engine::state::record::{Issued, Run, Runs, Stamp, Way, put_issued};
use croupier_engine::wal::format::crc32c;

use crate::checkpoint::STORE;

const HEADER_BYTES: usize = 64;

/// A file as it is; behind a good header; and as the rows of one chunk whose number is the first byte.
pub fn orders(data: &[u8]) {
    read(data, 1);
    let header = &sample_bytes()[..HEADER_BYTES];
    read(&[header, data].concat(), 2);
    let [rows, chunk @ ..] = data else { return };
    let mut file = header.to_vec();
    for word in [chunk.len() as u32, crc32c(chunk), u32::from(*rows), 0] {
        file.extend_from_slice(&word.to_le_bytes());
    }
    file.extend_from_slice(chunk);
    read(&file, u64::from(*rows));
}

fn read(bytes: &[u8], rows: u64) {
    let disk = MemoryDisk::new();
    let dir = Path::new("/orders");
    let listed = OrderFile {
        name: "o".into(),
        first_lsn: 1,
        end_lsn: 2,
        rows,
        file_bytes: bytes.len() as u64,
    };
    disk.put(&dir.join("o"), bytes);
    let shared = disk.disk();
    let Ok(mut reader) = OrderFileReader::open(&shared, dir, STORE, &listed) else {
        return;
    };
    let mut seen = 0;
    let read = reader.for_each(|_, record| {
        seen += 1;
        assert!(!record.is_empty() && record.len().is_multiple_of(64));
        Ok(())
    });
    if read.is_ok() {
        assert_eq!(
            seen, rows,
            "the orders that the checkpoint says, no more and no fewer"
        );
    }
}

pub(crate) fn sample_bytes() -> Vec<u8> {
    let disk = MemoryDisk::new();
    let shared = disk.disk();
    let dir = Path::new("/orders");
    let mut writer = OrderFileWriter::begin(&shared, dir, STORE).expect("there is room in memory");
    for (lsn, record) in [(5, issued(1)), (6, issued(9))] {
        writer.put(lsn, &record).expect("there is room in memory");
    }
    let file = writer
        .publish(5, 9)
        .expect("there is room in memory")
        .expect("it has rows");
    disk.contents(&dir.join(file.name))
        .expect("it has just been written")
}

/// An order of that many runs, as bytes.
pub(crate) fn issued(runs: u32) -> Vec<u8> {
    let runs: Vec<Run> = (0..runs)
        .map(|n| Run {
            slab: 1,
            slot: 3 * n,
            count: 2,
            generation: 0,
        })
        .collect();
    let issued = Issued {
        order_id: 0x0192_0000_0000_7000_8000_0000_0000_0000 + runs.len() as u128,
        holder: (runs.len() % 2) as u128,
        sku: 1,
        principal: 0,
        quantity: 2 * runs.len() as u16,
        priority: 1,
        lane: 1,
        way: Way::Issue,
        fewer: 0,
        runs: Runs::Given(&runs),
    };
    let mut words = Vec::new();
    put_issued(
        &mut words,
        Stamp {
            unix_ms: 1_700_000_000_000,
            route_table: 1,
        },
        &issued,
    );
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}
