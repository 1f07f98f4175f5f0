//! Some three thousand pictures that cjpeg, jpegtran, tiffcp, cwebp, gif2webp and own writers make, decoded as
//! Pillow decodes them. tests/sweep/pictures.py writes them and says how much may differ.
//!
//! It needs those programs and a Python environment, which `tests/setup.sh test` brings. Without them the
//! test says that it is skipped; with IMGVEC_REQUIRE_PICTURES set it fails.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use imgvec_encoder::image::{ImageError, ImageLimits, decode};
use imgvec_encoder::interrupt::never_interrupted;

/// Python with Pillow and numpy.
fn python() -> PathBuf {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..");
    let own = root.join("target/pictures/bin/python3");
    std::env::var_os("IMGVEC_PICTURES_PYTHON").map_or(own, PathBuf::from)
}

/// What is missing, if anything.
fn missing(python: &Path) -> Option<String> {
    if !python.exists() {
        return Some(format!("{} does not exist", python.display()));
    }
    let tools = ["cjpeg", "jpegtran", "tiffcp", "cwebp", "gif2webp"];
    let absent = |tool: &&str| Command::new(tool).arg("-version").output().is_err();
    tools.iter().find(|tool| absent(tool)).map(|tool| format!("{tool} is not installed"))
}

/// How a picture came out.
enum Outcome {
    /// Within what is allowed, with the greatest and the mean difference.
    Equal(u8, f64),
    Different(String),
    Unsupported(String),
    Damaged(String),
}

fn try_file(data: &[u8], expected: &[u8], sides: (u32, u32), max: u8, mean: f64) -> Outcome {
    let image = match decode(data, &ImageLimits::default(), never_interrupted) {
        Ok(image) => image,
        Err(error @ ImageError::Unsupported { .. }) => return Outcome::Unsupported(error.to_string()),
        Err(error) => return Outcome::Damaged(error.to_string()),
    };
    if (image.width(), image.height()) != sides {
        let (width, height) = (image.width(), image.height());
        return Outcome::Different(format!("{width} x {height} instead of {} x {}", sides.0, sides.1));
    }
    let pixels = image.upright_pixels().unwrap();
    let differences: Vec<u8> = pixels.iter().zip(expected).map(|(a, b)| a.abs_diff(*b)).collect();
    let greatest = differences.iter().copied().max().unwrap();
    let average = differences.iter().map(|&d| f64::from(d)).sum::<f64>() / differences.len() as f64;
    if greatest > max || average > mean {
        return Outcome::Different(format!("by {greatest} levels, {average:.2} on average"));
    }
    Outcome::Equal(greatest, average)
}

#[test]
fn pictures_of_other_programs_decode_as_in_pillow() {
    let python = python();
    if let Some(missing) = missing(&python) {
        assert!(std::env::var_os("IMGVEC_REQUIRE_PICTURES").is_none(), "{missing}");
        // Past the test harness, which keeps what a test prints that passes.
        let _ = writeln!(
            std::io::stderr(),
            "SKIPPED pictures_of_other_programs_decode_as_in_pillow: {missing} (tests/setup.sh test brings it)"
        );
        return;
    }
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("sweep-{}", std::process::id()));
    let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/sweep/pictures.py");
    let made = Command::new(&python).arg(&script).arg(&folder).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    print!("{}", String::from_utf8_lossy(&made.stdout));

    let read = |name: &str| std::fs::read(folder.join(name)).unwrap();
    let manifest = String::from_utf8(read("manifest")).unwrap();
    let (mut equal, mut unsupported, mut wrong) = (0, 0, Vec::new());
    let (mut damaged, mut different) = (0, 0);
    let mut spreads = BTreeMap::new();
    for line in manifest.lines() {
        let fields: Vec<&str> = line.split('\t').collect();
        let [name, verdict, width, height, max, mean] = fields[..] else { panic!("{line}") };
        let sides = (width.parse().unwrap(), height.parse().unwrap());
        let (data, expected) = (read(name), read(&format!("{name}.rgb")));
        match try_file(&data, &expected, sides, max.parse().unwrap(), mean.parse().unwrap()) {
            Outcome::Equal(greatest, average) if verdict == "equal" => {
                equal += 1;
                let format = name.split('_').next().unwrap().to_owned();
                let spread: &mut (u8, f64) = spreads.entry((format, max.to_owned())).or_default();
                *spread = (spread.0.max(greatest), spread.1.max(average));
            }
            Outcome::Unsupported(_) if verdict == "unsupported" => unsupported += 1,
            Outcome::Equal(..) => wrong.push(format!("{name}: decodes, which it did not")),
            Outcome::Unsupported(error) => wrong.push(format!("{name}: {error}")),
            Outcome::Damaged(error) => {
                damaged += 1;
                wrong.push(format!("{name}: {error}"));
            }
            Outcome::Different(how) => {
                different += 1;
                wrong.push(format!("{name}: differs {how}"));
            }
        }
    }
    println!(
        "{equal} pictures decode as in Pillow, {unsupported} are refused as not supported, {damaged} as damaged, \
         {different} differ"
    );
    for ((format, max), (greatest, average)) in spreads {
        println!("{format}, {max} levels allowed: at most {greatest}, {average:.2} on average");
    }
    assert!(wrong.is_empty(), "{} pictures in {}:\n{}", wrong.len(), folder.display(), wrong.join("\n"));
    // A tool that fails would make the test pass by having nothing to say.
    assert!(equal > 3_000, "{equal}");
    std::fs::remove_dir_all(folder).unwrap();
}
