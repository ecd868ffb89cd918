//! The group commit: cores append records under one short lock, one thread writes all that is there as one block.
//!
//! While a block is being written the next one fills. Nothing waits for a timer.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};

use super::super::durable_file::{ALIGN_BYTES, AlignedBuffer, DurableFile};
use super::core::Wake;

/// Most bytes of a block.
const BLOCK_BYTES_MAX: usize = 1 << 20;
/// Bytes of a record.
pub const RECORD_BYTES: usize = 64;
/// Bytes before the records of a block, as a real one has.
const HEADER_BYTES: usize = 64;

/// Records on their way to the file.
#[derive(Debug)]
pub struct Queue {
    ready: Mutex<Ready>,
    work: Condvar,
    /// All records below this are on stable storage.
    durable: AtomicU64,
}

#[derive(Debug, Default)]
struct Ready {
    records: Vec<u8>,
    /// The number of the record after the last one in `records`.
    end: u64,
    committer_sleeps: bool,
}

impl Queue {
    /// Appends records; returns the number that has to be durable before they may be answered.
    pub fn append(&self, records: &[u8]) -> u64 {
        let mut ready = self.ready.lock().expect("nobody panics with the lock");
        ready.records.extend_from_slice(records);
        ready.end += (records.len() / RECORD_BYTES) as u64;
        let end = ready.end;
        let wake = std::mem::take(&mut ready.committer_sleeps);
        drop(ready);
        if wake {
            self.work.notify_one();
        }
        end
    }

    /// All records below this are on stable storage.
    pub fn durable(&self) -> u64 {
        // SeqCst: see `Wake::want`.
        self.durable.load(Ordering::SeqCst)
    }

    /// Waits until there is something to write and takes all of it.
    fn take(&self, records: &mut Vec<u8>) -> u64 {
        records.clear();
        let mut ready = self.ready.lock().expect("nobody panics with the lock");
        while ready.records.is_empty() {
            ready.committer_sleeps = true;
            ready = self.work.wait(ready).expect("nobody panics with the lock");
        }
        ready.committer_sleeps = false;
        std::mem::swap(&mut ready.records, records);
        ready.end
    }
}

/// Starts the thread that commits; it ends with the process, and ends the process when a write fails.
pub fn start(mut file: DurableFile, cores: Vec<Arc<Wake>>) -> Arc<Queue> {
    let queue = Arc::new(Queue {
        ready: Mutex::default(),
        work: Condvar::new(),
        durable: AtomicU64::new(0),
    });
    let shared = queue.clone();
    std::thread::spawn(move || {
        let mut records = Vec::new();
        let mut block = AlignedBuffer::new(BLOCK_BYTES_MAX);
        loop {
            let end = shared.take(&mut records);
            let mut left = records.len() / RECORD_BYTES;
            for chunk in records.chunks(BLOCK_BYTES_MAX - ALIGN_BYTES) {
                let length = (HEADER_BYTES + chunk.len()).next_multiple_of(ALIGN_BYTES);
                let body = &mut block.as_mut()[HEADER_BYTES..length];
                body[..chunk.len()].copy_from_slice(chunk);
                body[chunk.len()..].fill(0);
                if let Err(error) = file.write_durable(block.first(length)) {
                    eprintln!("the log cannot be written: {error}");
                    std::process::exit(1);
                }
                left -= chunk.len() / RECORD_BYTES;
                // SeqCst: see `Wake::want`.
                shared.durable.store(end - left as u64, Ordering::SeqCst);
                cores.iter().for_each(|core| core.ring());
            }
        }
    });
    queue
}
