//! The only mapping of the project, and one of its two places with unsafe code.
//!
//! A slab is mapped twice: the whole file shared and read-only, and its claim words once more privately (copy on
//! write), so that the kernel never writes a claim back (DESIGN, rule 2). This module knows neither headers nor keys:
//! it is told lengths and hands out `&[u8]` and `&[AtomicU64]`. Next: [`crate::slab::file`].
//!
//! What is assumed: nobody shortens the file while it is mapped, and bytes that somebody has asked for are never written
//! again. Slabs are written whole, preallocated, before they are mapped, and their directory is locked while it is served.
//! One that grows is written while it is mapped, but only slots that are not there yet: [`crate::slab::file`] asks for no
//! byte of a slot before it has been told that the slot is written for good.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;

use crate::sync::atomic::AtomicU64;

/// What a mapping is made of.
#[derive(Debug, Clone, Copy)]
pub struct MapPlan {
    /// Length of the whole file; a file of another length is refused.
    pub file_bytes: u64,
    /// A multiple of the page size.
    pub claims_offset: u64,
    /// How many 64-bit claim words lie there; at least one.
    pub claim_words: usize,
}

impl MapPlan {
    /// Refuses what would make a mapping reach past the file's end: reading there would be a SIGBUS.
    fn check(&self, file: &File) -> io::Result<()> {
        let claims_end = self.claims_offset + self.claim_words as u64 * 8;
        assert!(self.claim_words > 0 && claims_end <= self.file_bytes);
        let found_bytes = file.metadata()?.len();
        if found_bytes != self.file_bytes {
            let text = format!(
                "{found_bytes} bytes where {} were to be mapped",
                self.file_bytes
            );
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        Ok(())
    }
}

#[cfg(not(any(miri, croupier_loom, croupier_shuttle)))]
pub use real::MappedFile;
#[cfg(any(miri, croupier_loom, croupier_shuttle))]
pub use stand_in::MappedFile;

#[cfg(not(any(miri, croupier_loom, croupier_shuttle)))]
mod real {
    use super::*;
    use std::ops::Range;

    use memmap2::{MmapMut, MmapOptions, MmapRaw};

    /// A mapped file and its private claim words. Unmapped when dropped.
    pub struct MappedFile {
        /// Never handed out whole: of a slab that grows some of it is still being written.
        file: MmapRaw,
        /// Never handed out but as atomics, so shared writes through `&self` are sound.
        claims: MmapMut,
        claim_words: usize,
    }

    impl MappedFile {
        /// Maps `file`. The claim words begin as they are in the file.
        pub fn map(file: &File, plan: &MapPlan) -> io::Result<Self> {
            plan.check(file)?;
            let file_bytes = usize::try_from(plan.file_bytes).map_err(io::Error::other)?;
            let shared = MmapOptions::new().len(file_bytes).map_raw_read_only(file)?;
            let mut claims = MmapOptions::new();
            claims.offset(plan.claims_offset).len(plan.claim_words * 8);
            // SAFETY: private copy on write, within the file (checked above). No one else has these pages once they
            // are written, and before that they are the file's, which do not change.
            let claims = unsafe { claims.map_copy(file)? };
            Ok(Self {
                file: shared,
                claims,
                claim_words: plan.claim_words,
            })
        }

        /// Bytes of the file, which nobody writes any more. Out of bounds: panics.
        #[inline]
        pub fn bytes(&self, range: Range<usize>) -> &[u8] {
            assert!(range.start <= range.end && range.end <= self.file.len());
            // SAFETY: the range is mapped readable (checked above) for as long as `self` lives, and the mapping is no
            // longer than the file (checked when it was made). The bytes behind the `&[u8]` do not change: whoever asks
            // has been told that they are written for good, and the store's directory is locked against other
            // processes of ours (see the module's assumption).
            unsafe { std::slice::from_raw_parts(self.file.as_ptr().add(range.start), range.len()) }
        }

        /// The claim words, private to this process.
        #[inline]
        pub fn claim_words(&self) -> &[AtomicU64] {
            let first = self.claims.as_ptr().cast::<AtomicU64>();
            debug_assert!(first.is_aligned(), "mappings begin at a page");
            // SAFETY: `first` is page-aligned, hence aligned for u64, and `claim_words * 8` bytes of it are mapped
            // readable and writable for as long as `self` lives. AtomicU64 has the layout of u64 and any bits are
            // valid. No plain reference to these bytes is ever made: `claims` is private and used only here.
            unsafe { std::slice::from_raw_parts(first, self.claim_words) }
        }

        /// Asks the processor to bring `offset` and the cache line after it nearer. Out of bounds: does nothing.
        #[inline]
        pub fn prefetch(&self, offset: usize) {
            if offset >= self.file.len() {
                return;
            }
            #[cfg(target_arch = "x86_64")]
            {
                use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
                let first = self.file.as_ptr().wrapping_add(offset).cast::<i8>();
                // SAFETY: prefetching never faults and reads nothing the program can see; SSE is part of x86-64.
                unsafe {
                    _mm_prefetch::<_MM_HINT_T0>(first);
                    _mm_prefetch::<_MM_HINT_T0>(first.wrapping_add(64));
                }
            }
        }
    }
}

/// On the heap, for interpreters that know no mmap and for checkers whose atomics are no plain words.
#[cfg(any(miri, croupier_loom, croupier_shuttle))]
mod stand_in {
    use super::*;
    use std::io::Read;
    use std::ops::Range;

    /// See the real one.
    pub struct MappedFile {
        file: Vec<u8>,
        claims: Vec<AtomicU64>,
    }

    impl MappedFile {
        /// Reads where the real one maps.
        pub fn map(mut file: &File, plan: &MapPlan) -> io::Result<Self> {
            plan.check(file)?;
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes)?;
            let claims = bytes[plan.claims_offset as usize..]
                .chunks_exact(8)
                .take(plan.claim_words)
                .map(|word| AtomicU64::new(u64::from_le_bytes(word.try_into().unwrap())))
                .collect();
            Ok(Self {
                file: bytes,
                claims,
            })
        }

        /// Bytes of the file as it was when it was read.
        pub fn bytes(&self, range: Range<usize>) -> &[u8] {
            &self.file[range]
        }

        /// The claim words.
        pub fn claim_words(&self) -> &[AtomicU64] {
            &self.claims
        }

        /// Nothing to do.
        pub fn prefetch(&self, _offset: usize) {}
    }
}

#[cfg(all(test, not(any(croupier_loom, croupier_shuttle))))]
mod tests {
    use std::io::Write;
    use std::sync::atomic::Ordering;

    use super::*;

    const PAGE_BYTES: u64 = 4096;

    fn file_of(pages: u64) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&vec![0xA5; (pages * PAGE_BYTES) as usize])
            .unwrap();
        file
    }

    fn plan(pages: u64, claim_words: usize) -> MapPlan {
        MapPlan {
            file_bytes: pages * PAGE_BYTES,
            claims_offset: PAGE_BYTES,
            claim_words,
        }
    }

    #[test]
    fn a_claim_is_seen_by_the_process_and_never_by_the_file() {
        let file = file_of(3);
        let mapped = MappedFile::map(&file, &plan(3, 9)).unwrap();
        let words = mapped.claim_words();
        assert_eq!(words.len(), 9);
        assert_eq!(
            words[8].load(Ordering::SeqCst),
            u64::from_le_bytes([0xA5; 8])
        );
        words[8].store(0, Ordering::SeqCst);
        assert_eq!(mapped.claim_words()[8].load(Ordering::SeqCst), 0);
        assert!(
            mapped
                .bytes(0..3 * PAGE_BYTES as usize)
                .iter()
                .all(|&byte| byte == 0xA5),
            "the shared mapping is the file"
        );
        let again = MappedFile::map(&file, &plan(3, 9)).unwrap();
        assert_ne!(
            again.claim_words()[8].load(Ordering::SeqCst),
            0,
            "the file kept its bytes"
        );
    }

    #[test]
    fn a_file_of_another_length_is_not_mapped() {
        let file = file_of(2);
        for pages in [1, 3] {
            let plan = MapPlan {
                file_bytes: pages * PAGE_BYTES,
                claims_offset: 0,
                claim_words: 1,
            };
            let error = MappedFile::map(&file, &plan)
                .err()
                .expect("the length is wrong");
            assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        }
    }

    #[test]
    fn prefetching_anywhere_does_nothing_one_could_see() {
        let mapped = MappedFile::map(&file_of(2), &plan(2, 1)).unwrap();
        for offset in [0, 1, 4096, 8191, 8192, 8193, usize::MAX] {
            mapped.prefetch(offset);
        }
    }
}
