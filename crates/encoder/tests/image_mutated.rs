//! AVIF and HEIC with damage, many in one process: an error or a picture, never a crash, and memory stays flat.
//!
//! The decoders of both have interfaces of C, on threads that a panic would leave asleep. One test, alone in its process, because it
//! watches the process's memory. IMGVEC_FUZZ_CASES and IMGVEC_FUZZ_SEED choose how many and which.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use imgvec_encoder::image::{ImageError, ImageLimits, decode, decode_frame, info};
use imgvec_encoder::interrupt::never_interrupted;

/// A decoder that hangs, or pays for what a few bytes promise, takes longer on any machine.
const HANGS: Duration = Duration::from_secs(20);
/// What the process may take beside what it took after the first tenth. Allocators keep some.
const GROWTH_MIB: f64 = 24.0;

fn limits() -> ImageLimits {
    ImageLimits { max_input_bytes: 1 << 20, ..ImageLimits::of_pixels(1 << 20) }
}

fn status_mib(field: &str) -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with(field)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() / 1024.0
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, count: usize) -> usize {
        (self.next() % count.max(1) as u64) as usize
    }
}

fn seeds(extension: &str) -> Vec<Vec<u8>> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/images");
    let mut paths: Vec<PathBuf> = ["cases", "frames", "heic"]
        .into_iter()
        .flat_map(|name| std::fs::read_dir(folder.join(name)).unwrap())
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|found| found == extension))
        .collect();
    paths.sort();
    assert!(paths.len() > 10, "{extension}");
    paths.iter().map(|path| std::fs::read(path).unwrap()).collect()
}

/// Where boxes lie in `place`, those inside of others too.
fn boxes(data: &[u8], mut at: usize, end: usize, depth: usize, found: &mut Vec<(usize, usize)>) {
    const HOLD_OTHERS: [(&[u8; 4], usize); 8] = [
        (b"meta", 12),
        (b"iprp", 8),
        (b"ipco", 8),
        (b"moov", 8),
        (b"trak", 8),
        (b"mdia", 8),
        (b"minf", 8),
        (b"stbl", 8),
    ];
    while let Some(&[a, b, c, d]) = data[at..end].first_chunk::<4>() {
        let len = u32::from_be_bytes([a, b, c, d]) as usize;
        if len < 8 || at + len > end {
            return;
        }
        found.push((at, at + len));
        let inside = HOLD_OTHERS.iter().find(|(kind, _)| kind[..] == data[at + 4..at + 8]);
        if let Some((_, head)) = inside.filter(|(_, head)| depth < 8 && *head <= len) {
            boxes(data, at + head, at + len, depth + 1, found);
        }
        at += len;
    }
}

/// Two boxes change places, wherever they are.
fn swap_boxes(data: &mut Vec<u8>, random: &mut Random) {
    let mut found = Vec::new();
    boxes(data, 0, data.len(), 0, &mut found);
    if found.is_empty() {
        return;
    }
    let (one, other) = (found[random.below(found.len())], found[random.below(found.len())]);
    let (first, second) = (one.min(other), one.max(other));
    if first.1 > second.0 {
        return;
    }
    let mut swapped = data[..first.0].to_vec();
    swapped.extend(&data[second.0..second.1]);
    swapped.extend(&data[first.1..second.0]);
    swapped.extend(&data[first.0..first.1]);
    swapped.extend(&data[second.1..]);
    *data = swapped;
}

fn mutated(seeds: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
    let mut data = seeds[random.below(seeds.len())].clone();
    // The coded picture comes last; damage in boxes rarely gets as far as a decoder.
    let coded = data.windows(4).rposition(|kind| kind == b"mdat").map_or(0, |at| at + 4);
    for _ in 0..=random.below(4) {
        if data.is_empty() {
            break;
        }
        let from = if random.below(3) == 0 || coded >= data.len() { 0 } else { coded };
        let at = from + random.below(data.len() - from);
        match random.below(12) {
            0..4 => data[at] ^= 1 << random.below(8),
            4 | 5 => data[at] = random.next() as u8,
            6 => data[at] = [0, 1, 127, 128, 255][random.below(5)],
            7 => {
                let end = (at + random.below(40)).min(data.len());
                data[at..end].iter_mut().for_each(|byte| *byte = random.next() as u8);
            }
            8 => data.truncate(at),
            9 => {
                let end = (at + random.below(16)).min(data.len());
                data.drain(at..end);
            }
            10 => {
                let other = &seeds[random.below(seeds.len())];
                let start = random.below(other.len());
                let end = (start + random.below(200)).min(other.len()).min(start + data.len() - at);
                data[at..at + end - start].copy_from_slice(&other[start..end]);
            }
            _ => swap_boxes(&mut data, random),
        }
    }
    data
}

/// A decoder that panicked sleeps for good, so it must not.
fn is_contained(result: Result<(), ImageError>) -> bool {
    match result {
        Ok(()) => true,
        Err(ImageError::Corrupt { format, reason }) if reason.contains("decoder failed") => {
            // The harness would take the hook in which the thread sleeps, and wait for ever.
            eprintln!("{format}: {reason}");
            std::process::exit(101);
        }
        Err(_) => false,
    }
}

#[test]
fn damaged_pictures_of_phones_and_the_web_leave_the_process_as_it_was() {
    let count = number("IMGVEC_FUZZ_CASES").unwrap_or(1_500);
    let seed = number("IMGVEC_FUZZ_SEED").unwrap_or(7);
    println!("seed {seed}");
    let mut random = Random(seed);
    let limits = limits();
    for extension in ["avif", "heic"] {
        let seeds = seeds(extension);
        let (mut pictures, mut longest, mut start_mib) = (0_u64, Duration::ZERO, 0.0);
        for number in 0..count {
            if number == count / 10 {
                start_mib = status_mib("VmRSS");
            }
            let data = mutated(&seeds, &mut random);
            let path =
                std::env::temp_dir().join(format!("imgvec-mutated-{}.{extension}", std::process::id()));
            std::fs::write(&path, &data).unwrap();
            let start = Instant::now();
            let _ = info(&data, &limits);
            is_contained(decode_frame(&data, 3, &limits, never_interrupted).map(drop));
            pictures += u64::from(is_contained(decode(&data, &limits, never_interrupted).map(drop)));
            longest = longest.max(start.elapsed());
            assert!(start.elapsed() < HANGS, "{}", path.display());
            std::fs::remove_file(&path).unwrap();
        }
        let grown = status_mib("VmRSS") - start_mib;
        let (most, threads) = (status_mib("VmHWM"), std::fs::read_dir("/proc/self/task").unwrap().count());
        println!(
            "{extension}: {pictures} of {count} are pictures, the slowest took {longest:?}; \
             {grown:.1} MiB more than after a tenth, {most:.0} at most, {threads} threads"
        );
        assert!(grown < GROWTH_MIB, "{extension}: {grown} MiB");
    }
}
