//! A thousand hostile images in one session: each refused with the right code, none keeps memory.

use std::fs;

use postgres::error::SqlState;

use crate::cluster::{Cluster, Memory};
use crate::{Random, encoder_data, failure, value};

/// More than an allocator's noise, far less than one decoded picture for each input.
const GROWTH_BYTES: u64 = 8 << 20;

/// Headers that promise what the data do not hold.
fn forged() -> Vec<Vec<u8>> {
    let gif = |width: u16, height: u16| {
        let mut data = b"GIF89a".to_vec();
        data.extend([width.to_le_bytes(), height.to_le_bytes()].concat());
        data.extend([0x80, 0, 0, 0, 0, 0, 255, 255, 255, 0x2c, 0, 0, 0, 0]);
        data.extend([width.to_le_bytes(), height.to_le_bytes()].concat());
        data.extend([0, 2, 2, 0x4c, 1, 0, 0x3b]);
        data
    };
    let jpeg = |side: u16| {
        let side = side.to_be_bytes();
        let frame = [
            &[0xff, 0xd8, 0xff, 0xc0, 0, 17, 8],
            &side[..],
            &side[..],
            &[3, 1, 0x22, 0, 2, 0x11, 1, 3, 0x11, 1],
        ];
        frame.concat()
    };
    vec![
        gif(19_000, 19_000),
        gif(65_535, 65_535),
        gif(7_000, 7_000),
        jpeg(19_000),
        jpeg(65_500),
        jpeg(7_000),
        Vec::new(),
        b"just a line of text".to_vec(),
        b"<svg xmlns='http://www.w3.org/2000/svg'/>".to_vec(),
        vec![0xff; 100_000],
    ]
}

/// The encoder's good pictures, to be damaged.
fn good() -> Vec<Vec<u8>> {
    let mut paths: Vec<_> = fs::read_dir(encoder_data("images/files"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| fs::metadata(path).unwrap().len() < 200_000)
        .collect();
    paths.sort();
    assert!(paths.len() > 20, "{paths:?}");
    paths.iter().map(|path| fs::read(path).unwrap()).collect()
}

#[test]
fn a_thousand_hostile_images_leave_memory_flat() {
    let cluster = Cluster::new("hostile").start();
    let mut client = cluster.client();
    let pid = u32::try_from(value::<i32>(&mut client, "SELECT pg_backend_pid()")).unwrap();
    let statement = client.prepare("SELECT imgvec_dims(embed_image($1))").unwrap();
    // Nothing of what is refused may be remembered, and what is accepted must not fill the cache.
    client.batch_execute("SET imgvec.embedding_cache_entries = 10").unwrap();
    let (forged, good) = (forged(), good());
    let mut random = Random(20_26);
    let (mut refused, mut accepted) = (0, 0);
    let mut attack = |count: usize| {
        for turn in 0..count {
            let data = match turn % 3 {
                0 => forged[turn / 3 % forged.len()].clone(),
                1 => {
                    let whole = &good[random.below(good.len())];
                    whole[..random.below(whole.len())].to_vec()
                }
                _ => {
                    let mut damaged = good[random.below(good.len())].clone();
                    for _ in 0..=random.below(40) {
                        let place = random.below(damaged.len());
                        damaged[place] = random.byte();
                    }
                    damaged
                }
            };
            match client.query_one(&statement, &[&data]) {
                Ok(row) => {
                    accepted += 1;
                    assert_eq!(row.get::<_, i32>(0), 256);
                }
                Err(error) => {
                    refused += 1;
                    let error = error.as_db_error().unwrap_or_else(|| panic!("turn {turn}: {error:?}"));
                    let expected = [
                        SqlState::INVALID_BINARY_REPRESENTATION.code(),
                        SqlState::PROGRAM_LIMIT_EXCEEDED.code(),
                        SqlState::FEATURE_NOT_SUPPORTED.code(),
                    ];
                    assert!(expected.contains(&error.code().code()), "turn {turn}: {error:?}");
                    assert!(error.detail().is_some(), "turn {turn}: {error:?}");
                }
            }
        }
    };
    attack(200);
    let before = Memory::of(pid);
    attack(1000);
    let after = Memory::of(pid);
    let grown = after.anonymous.saturating_sub(before.anonymous);
    assert!(grown < GROWTH_BYTES, "memory grew by {grown} bytes: {before:?} -> {after:?}");
    assert!(refused > 600 && accepted > 10, "{refused} refused, {accepted} accepted");
    assert_eq!(value::<i32>(&mut client, "SELECT imgvec_dims(embed_text('dog'))"), 256);
}

/// AVIF needs nothing of the server; HEIC needs libheif, and the error names its package.
#[test]
fn images_of_phones_and_the_web_are_embedded_or_refused_with_a_hint() {
    let cluster = Cluster::new("phones").start();
    let mut client = cluster.client();
    let file = |name: &str| fs::read(encoder_data(&format!("images/{name}"))).unwrap();
    let dims = client.prepare("SELECT imgvec_dims(embed_image($1))").unwrap();
    for name in ["cases/avif_420_full.avif", "cases/avif_grid_alpha.avif", "frames/animation.avif"] {
        assert_eq!(client.query_one(&dims, &[&file(name)]).unwrap().get::<_, i32>(0), 256, "{name}");
    }
    let second = "SELECT imgvec_dims(embed_image($1, frame => 2))";
    assert_eq!(client.query_one(second, &[&file("frames/animation.avif")]).unwrap().get::<_, i32>(0), 256);

    let heic = file("heic/420.heic");
    let error = |client: &mut postgres::Client| {
        let error = client.query_one(&dims, &[&heic]).unwrap_err();
        error.as_db_error().unwrap_or_else(|| panic!("{error:?}")).clone()
    };
    client.batch_execute("SET imgvec.libheif_library = 'none'").unwrap();
    let off = error(&mut client);
    client.batch_execute("SET imgvec.libheif_library = '/no/such/libheif.so'").unwrap();
    let missing = error(&mut client);
    for (error, words) in [(off, "switched off"), (missing, "/no/such/libheif.so")] {
        assert_eq!(error.code(), &SqlState::FEATURE_NOT_SUPPORTED, "{error:?}");
        assert!(error.detail().unwrap().contains(words), "{error:?}");
        assert!(error.hint().unwrap().contains("libheif1"), "{error:?}");
    }
    client.batch_execute("RESET imgvec.libheif_library").unwrap();
    // Where the server has it, it decodes; the setting of a plain role stays out of reach.
    match client.query_one(&dims, &[&heic]) {
        Ok(row) => assert_eq!(row.get::<_, i32>(0), 256),
        Err(error) => {
            let error = error.as_db_error().unwrap_or_else(|| panic!("{error:?}")).clone();
            assert!(error.detail().unwrap().contains("libheif"), "{error:?}");
        }
    }
    client.batch_execute("CREATE ROLE phone; SET ROLE phone").unwrap();
    let error = failure(&mut client, "SET imgvec.libheif_library = ''");
    assert_eq!(error.code(), &SqlState::INSUFFICIENT_PRIVILEGE);
}
