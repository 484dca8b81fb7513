//! No image costs more than 64 MiB, and none takes long: the worst files that the limits admit, under a counting allocator.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test fails by panicking
#![allow(unsafe_code, reason = "a counting allocator is one by definition")]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    io::Write,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
    time::Instant,
};

use vultus::pipeline::decode::{DecodeLimits, Source, decode};

const MOST_BYTES: usize = 64 << 20;
const SIDE: u32 = 2048; // 2048 x 2048 is exactly the limit of 4 Mi pixels

struct Counting;

static LIVE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call goes to `System` unchanged; the counters never touch the memory.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        PEAK.fetch_max(LIVE.fetch_add(layout.size(), Relaxed) + layout.size(), Relaxed);
        // SAFETY: the caller keeps `alloc`'s contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Relaxed);
        // SAFETY: the caller keeps `dealloc`'s contract.
        unsafe { System.dealloc(block, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Noise that every format finds hard; `calm` leaves that share of 16 px blocks flat, so that files stay below 2 MiB.
fn noise(channels: usize, calm: u32) -> Vec<u8> {
    let mut state = 1u32;
    let mut samples = Vec::with_capacity((SIDE * SIDE) as usize * channels);
    for y in 0..SIDE {
        for x in 0..SIDE {
            let block = (x / 16).wrapping_mul(0x9e37_79b1) ^ (y / 16).wrapping_mul(0x85eb_ca6b);
            let flat = (block >> 13) % 100 < calm;
            for _ in 0..channels {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                samples.push(if flat { 90 } else { (state >> 24) as u8 });
            }
        }
    }
    samples
}

/// EXIF orientation 6: rows become columns, in a second buffer.
const TURNED: &[u8] = b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0";

fn jpeg(samples: &[u8], quality: u8, scans: Option<u8>) -> Vec<u8> {
    let mut file = Vec::new();
    let mut encoder = jpeg_encoder::Encoder::new(&mut file, quality);
    encoder.set_sampling_factor(jpeg_encoder::SamplingFactor::R_4_4_4);
    encoder.add_exif_metadata(TURNED).unwrap();
    if let Some(scans) = scans {
        encoder.set_optimized_huffman_tables(true);
        encoder.set_progressive_scans(scans);
    }
    encoder.encode(samples, SIDE as u16, SIDE as u16, jpeg_encoder::ColorType::Rgb).unwrap();
    file
}

fn png(samples: &[u8], colour: png::ColorType, depth: png::BitDepth) -> Vec<u8> {
    let mut file = Vec::new();
    let mut encoder = png::Encoder::new(&mut file, SIDE, SIDE);
    encoder.set_color(colour);
    encoder.set_depth(depth);
    encoder.set_filter(png::Filter::Paeth);
    encoder.write_header().unwrap().write_image_data(samples).unwrap();
    file
}

/// Adam7, all zero: the encoder writes none, so the passes are laid out here.
fn interlaced_png() -> Vec<u8> {
    let chunk = |name: &[u8; 4], data: &[u8]| {
        let body = [name, data].concat();
        let mut crc = flate2::Crc::new();
        crc.update(&body);
        [&(data.len() as u32).to_be_bytes(), body.as_slice(), &crc.sum().to_be_bytes()].concat()
    };
    let size = SIDE.to_be_bytes();
    let header = [size.as_slice(), &size, &[16, 6, 0, 0, 1]].concat();
    let passes = [(8, 8), (8, 8), (4, 8), (4, 4), (2, 4), (2, 2), (1, 2)]; // pixels apart in a pass: across, down
    let mut deflated = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
    for (across, down) in passes {
        let row = vec![0; 1 + (SIDE / across) as usize * 8];
        (0..SIDE / down).for_each(|_| deflated.write_all(&row).unwrap());
    }
    let data = deflated.finish().unwrap();
    [b"\x89PNG\r\n\x1a\n".to_vec(), chunk(b"IHDR", &header), chunk(b"IDAT", &data), chunk(b"IEND", &[])].concat()
}

fn webp(samples: &[u8], colour: image_webp::ColorType) -> Vec<u8> {
    let mut file = Vec::new();
    image_webp::WebPEncoder::new(&mut file).encode(samples, SIDE, SIDE, colour).unwrap();
    file
}

/// Bits of a packet's header: a byte of ones is followed by one of seven bits.
#[derive(Default)]
struct Bits {
    bytes: Vec<u8>,
    used: u32,
}

impl Bits {
    fn push(&mut self, value: u32, count: u32) {
        for place in (0..count).rev() {
            if self.used == 0 {
                self.used = if self.bytes.last() == Some(&0xff) { 7 } else { 8 };
                self.bytes.push(0);
            }
            self.used -= 1;
            *self.bytes.last_mut().unwrap() |= ((value >> place & 1) as u8) << self.used;
        }
    }
}

/// A JPEG 2000 that asks for every pass over every bit plane of every sample, with `length` bytes of noise in a code block: the
/// decoder goes on for as long whether there are bytes or not. Blocks of 64 x 64 stand in precincts of their own.
fn jpeg2000(side: u32, components: u16, planes: u8, length: u32) -> Vec<u8> {
    const LEVELS: u8 = 5;
    let mut file = vec![0xff, 0x4f, 0xff, 0x51];
    file.extend((38 + 3 * components).to_be_bytes());
    file.extend([0, 0]);
    [side, side, 0, 0, side, side, 0, 0].iter().for_each(|number| file.extend(number.to_be_bytes()));
    file.extend(components.to_be_bytes());
    file.extend([7, 1, 1].repeat(components.into()));
    file.extend([0xff, 0x52, 0, 13 + LEVELS, 1, 0, 0, 1, u8::from(components == 3), LEVELS, 4, 4, 0, 0, 0x66]);
    file.extend([0x77; LEVELS as usize]);
    let bands = 1 + 3 * LEVELS;
    file.extend([0xff, 0x5c, 0, 3 + 2 * bands, 1 << 5 | 2]);
    file.extend([planes << 3, 0].repeat(bands.into()));
    let (mut packets, mut state) = (Vec::new(), 1u32);
    for resolution in 0..=LEVELS {
        let (precinct, blocks) = if resolution == 0 { (64, 1) } else { (128, 3) };
        let across = side.div_ceil(1 << (LEVELS - resolution)).div_ceil(precinct);
        for _ in 0..u32::from(components) * across * across {
            let mut header = Bits::default();
            header.push(1, 1); // not empty
            for _ in 0..blocks {
                header.push(0b11, 2); // included, and no bit plane is missing
                let passes = 3 * u32::from(planes) - 2;
                match passes {
                    1 => header.push(0, 1),
                    2..=5 => header.push(0b1100 + passes - 3, 4),
                    6..=36 => header.push(0b1111 << 5 | (passes - 6), 9),
                    _ => header.push(0x1ff << 7 | (passes - 37), 16),
                }
                let room = 3 + passes.ilog2();
                let more = (u32::BITS - length.leading_zeros()).saturating_sub(room);
                header.push((1 << (more + 1)) - 2, more + 1); // ones, then a zero
                header.push(length, room + more);
            }
            packets.extend(header.bytes);
            if packets.last() == Some(&0xff) {
                packets.push(0);
            }
            for _ in 0..blocks * length {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                packets.push((state >> 24) as u8);
            }
        }
    }
    file.extend([0xff, 0x90, 0, 10, 0, 0]);
    file.extend((14 + packets.len() as u32).to_be_bytes());
    file.extend([0, 1, 0xff, 0x93]);
    file.extend(packets);
    file.extend([0xff, 0xd9]);
    file
}

#[test]
fn the_worst_images_within_the_limits_stay_within_64_mib() {
    let eight = png::BitDepth::Eight;
    let files = [
        ("jpeg, baseline 4:4:4", jpeg(&noise(3, 0), 12, None)),
        ("jpeg, progressive 4:4:4, 4 passes", jpeg(&noise(3, 0), 8, Some(4))),
        ("jpeg, progressive 4:4:4, most scans", jpeg(&noise(3, 50), 12, Some(8))),
        ("png, noise rgb", png(&noise(3, 88), png::ColorType::Rgb, eight)),
        ("png, rgba of 16 bits", png(&noise(8, 97), png::ColorType::Rgba, png::BitDepth::Sixteen)),
        (
            "png, bomb of 16 bits",
            png(&vec![0; (SIDE * SIDE * 8) as usize], png::ColorType::Rgba, png::BitDepth::Sixteen),
        ),
        ("png, interlaced bomb of 16 bits", interlaced_png()),
        ("webp, lossless rgb", webp(&noise(3, 88), image_webp::ColorType::Rgb8)),
        ("webp, lossless rgba", webp(&noise(4, 92), image_webp::ColorType::Rgba8)),
        ("jpeg 2000, 3 bit planes", jpeg2000(1040, 3, 3, 64)),
        ("jpeg 2000, 12 bit planes", jpeg2000(736, 3, 12, 64)),
        ("jpeg 2000, 31 bit planes", jpeg2000(512, 3, 31, 64)),
        ("jpeg 2000, full of bytes", jpeg2000(736, 3, 12, 4300)),
        ("jpeg 2000, large and grey", jpeg2000(2048, 1, 1, 16)),
    ];
    let limits = DecodeLimits::default();
    for (kind, file) in files {
        assert!(file.len() <= limits.max_bytes, "{kind}: {} bytes", file.len());
        let before = LIVE.load(Relaxed);
        PEAK.store(before, Relaxed);
        let began = Instant::now();
        let result = decode(Source::Encoded(&file), &limits);
        let took = began.elapsed();
        let peak = PEAK.load(Relaxed) - before;
        println!("{kind}: {} KiB, {:.1} MiB, {took:.0?}", file.len() >> 10, peak as f64 / f64::from(1 << 20));
        assert!(result.is_ok(), "{kind}: {result:?}");
        assert!(peak <= MOST_BYTES, "{kind}: {peak} bytes");
    }
}
