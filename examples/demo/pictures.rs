//! The pictures of the demo: sample photographs with colored emoji, or a person's own directory.

use std::error::Error;
use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use emojis::Group;
use ttf_parser::{Face, RasterImageFormat};

/// Where Debian and other systems keep the color emoji font (CBDT: one PNG for each glyph).
const EMOJI_FONTS: [&str; 3] = [
    "/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf",
    "/usr/share/fonts/noto/NotoColorEmoji.ttf",
    "/usr/share/fonts/google-noto-emoji/NotoColorEmoji.ttf",
];

/// Names of the sample photographs by file stem; the ones not named here show no everyday thing.
const PHOTO_LABELS: [(&str, &str); 16] = [
    ("astronaut", "astronaut"),
    ("brick", "brick wall"),
    ("camera", "photographer"),
    ("chelsea", "cat"),
    ("china", "temple"),
    ("clock_motion", "clock"),
    ("coffee", "cup of coffee"),
    ("coins", "coins"),
    ("flower", "flower"),
    ("grass", "grass"),
    ("gravel", "gravel"),
    ("hubble_deep_field", "galaxies"),
    ("moon", "moon"),
    ("motorcycle_left", "motorcycle"),
    ("page", "printed page"),
    ("rocket", "rocket"),
];

/// Larger files are not even offered to the server: a bytea parameter cannot be longer than 1 GB.
const MAX_FILE_BYTES: u64 = 512 << 20;

/// One picture before it is in the database.
pub struct Picture {
    /// Unique: a path below the searched directory, or an emoji with its name.
    pub name: String,
    /// What it shows, if that is known.
    pub label: Option<String>,
    source: Source,
}

enum Source {
    File(PathBuf),
    Bytes(Vec<u8>),
}

impl Picture {
    /// The encoded picture.
    ///
    /// # Errors
    /// If its file cannot be read or is absurdly large.
    pub fn read(&self) -> Result<Vec<u8>, Box<dyn Error>> {
        match &self.source {
            Source::Bytes(bytes) => Ok(bytes.clone()),
            Source::File(path) => {
                let size = fs::metadata(path)?.len();
                if size > MAX_FILE_BYTES {
                    return Err(format!("the file has {size} bytes").into());
                }
                Ok(fs::read(path)?)
            }
        }
    }
}

/// The sample photographs below `directory`, then the emoji.
///
/// # Errors
/// If the photographs or the font are not there; `make demo` fetches both.
pub fn samples(directory: &Path) -> Result<Vec<Picture>, Box<dyn Error>> {
    let (found, _) = own(directory)?;
    let mut pictures: Vec<Picture> = found
        .into_iter()
        .filter_map(|mut picture| {
            let path = Path::new(&picture.name);
            let stem = path.file_stem()?.to_str()?;
            let (_, label) = PHOTO_LABELS.iter().find(|(known, _)| *known == stem)?;
            picture.label = Some((*label).to_owned());
            picture.name = path.file_name()?.to_str()?.to_owned();
            Some(picture)
        })
        .collect();
    if pictures.is_empty() {
        return Err(format!("no sample photographs in {}; run `make demo`", directory.display()).into());
    }
    let font = EMOJI_FONTS.iter().find_map(|path| fs::read(path).ok());
    let font = font.ok_or("no color emoji font; install fonts-noto-color-emoji or run `make demo`")?;
    pictures.extend(emoji(&font)?);
    Ok(pictures)
}

/// Emoji of one code point from the groups that show things, as the font's PNG images.
fn emoji(font: &[u8]) -> Result<Vec<Picture>, Box<dyn Error>> {
    let face = Face::parse(font, 0)?;
    let groups = [Group::AnimalsAndNature, Group::FoodAndDrink, Group::TravelAndPlaces, Group::Activities];
    let pictures = groups.iter().flat_map(Group::emojis).filter_map(|emoji| {
        // U+FE0F asks for the colored form and has no glyph of its own.
        let mut characters = emoji.as_str().chars().filter(|&character| character != '\u{fe0f}');
        let (character, None) = (characters.next()?, characters.next()) else { return None };
        let glyph = face.glyph_index(character)?;
        let image = face.glyph_raster_image(glyph, u16::MAX)?;
        (image.format == RasterImageFormat::PNG).then(|| Picture {
            name: format!("{emoji} {}", emoji.name()),
            label: Some(emoji.name().to_owned()),
            source: Source::Bytes(image.data.to_vec()),
        })
    });
    Ok(pictures.collect())
}

/// Every picture file below a directory, and how many other files there are. A file counts as a
/// picture by its first bytes, whatever its name; hidden files and links to directories are left out.
///
/// # Errors
/// If the directory itself cannot be read; what cannot be read below it is left out.
pub fn own(directory: &Path) -> Result<(Vec<Picture>, usize), Box<dyn Error>> {
    let unreadable = |error| format!("cannot read {}: {error}", directory.display());
    fs::read_dir(directory).map_err(unreadable)?;
    let (mut pictures, mut others) = (Vec::new(), 0);
    let mut directories = vec![directory.to_owned()];
    while let Some(current) = directories.pop() {
        let Ok(entries) = fs::read_dir(&current) else { continue };
        for entry in entries.flatten() {
            let path = entry.path();
            let Ok(kind) = entry.file_type() else { continue };
            if entry.file_name().as_encoded_bytes().starts_with(b".") {
                continue;
            } else if kind.is_dir() {
                directories.push(path);
            } else if is_picture(&path) {
                let name = path.strip_prefix(directory).unwrap_or(&path).to_string_lossy().into_owned();
                pictures.push(Picture { name, label: None, source: Source::File(path) });
            } else {
                others += 1;
            }
        }
    }
    pictures.sort_by(|a, b| a.name.cmp(&b.name));
    Ok((pictures, others))
}

/// Whether the extension would see a picture in a file, or its name promises one; a name that lies
/// is worth a message.
fn is_picture(path: &Path) -> bool {
    const EXTENSIONS: [&str; 11] =
        ["jpg", "jpeg", "png", "gif", "webp", "bmp", "tif", "tiff", "avif", "heic", "jxl"];
    let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    if EXTENSIONS.iter().any(|known| known.eq_ignore_ascii_case(extension)) {
        return path.is_file();
    }
    let mut start = Vec::with_capacity(32);
    let opened = path.is_file().then(|| fs::File::open(path).ok()).flatten();
    let read = opened.and_then(|file| file.take(32).read_to_end(&mut start).ok());
    read.is_some() && image::guess_format(&start).is_ok()
}
