//! The pictures of the demo and of the gallery: sample photographs, drawings and colored emoji, or a person's own directory.

#![allow(dead_code, reason = "the demo and the gallery each use a part")]

use std::error::Error;
use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use emojis::Group;
use image::{DynamicImage, Rgb, RgbImage};
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
    /// Where it belongs, if not where its name says.
    pub folder: Option<String>,
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

    /// The year in which its file was last written.
    pub fn year(&self) -> Option<i32> {
        let Source::File(path) = &self.source else { return None };
        let modified = fs::metadata(path).ok()?.modified().ok()?;
        let seconds = modified.duration_since(std::time::UNIX_EPOCH).ok()?.as_secs_f64();
        // Mean years: a file of New Year's Eve may be a year off.
        Some(1970 + (seconds / 31_556_952.0) as i32)
    }
}

/// The sample photographs below `directory`, then the emoji.
///
/// # Errors
/// If the photographs or the font are not there; `make demo` fetches both.
pub fn samples(directory: &Path) -> Result<Vec<Picture>, Box<dyn Error>> {
    let mut pictures = photographs(directory)?;
    pictures.extend(colored_emoji()?);
    Ok(pictures)
}

/// The sample photographs, the stamps of Tux Paint with their photographs first, and smaller copies of some; emoji where
/// there are no stamps. `target` is where `make gallery` fetched them to.
///
/// # Errors
/// If the photographs are not there.
pub fn library(target: &Path) -> Result<Vec<Picture>, Box<dyn Error>> {
    let photographs = photographs(&target.join("photos"))?;
    let stamps = stamps(&target.join("stamps"));
    let copied = photographs.iter().step_by(5).chain(stamps.iter().step_by(90));
    let copies: Vec<Picture> = copied.filter_map(copy).collect();
    let mut pictures = photographs;
    if stamps.is_empty() {
        pictures.extend(colored_emoji()?);
    } else {
        // As they lie, two hundred animals come first: mixed, the first screen shows what there is.
        let (drawn, mut photographed): (Vec<_>, Vec<_>) =
            stamps.into_iter().partition(|stamp| stamp.name.contains("cartoon"));
        let count = photographed.len().max(1);
        let mut mixed: Vec<(usize, Picture)> =
            photographed.drain(..).enumerate().map(|(place, stamp)| (place * 211 % count, stamp)).collect();
        mixed.sort_by_key(|&(place, _)| place);
        pictures.extend(mixed.into_iter().map(|(_, stamp)| stamp));
        pictures.extend(drawn);
    }
    pictures.extend(copies);
    Ok(pictures)
}

/// The photographs that show an everyday thing, with its name.
fn photographs(directory: &Path) -> Result<Vec<Picture>, Box<dyn Error>> {
    let (found, _) = own(directory)?;
    let pictures: Vec<Picture> = found
        .into_iter()
        .filter_map(|mut picture| {
            let path = Path::new(&picture.name);
            let stem = path.file_stem()?.to_str()?;
            let (_, label) = PHOTO_LABELS.iter().find(|(known, _)| *known == stem)?;
            picture.label = Some((*label).to_owned());
            picture.folder = Some("photographs".to_owned());
            picture.name = path.file_name()?.to_str()?.to_owned();
            Some(picture)
        })
        .collect();
    if pictures.is_empty() {
        return Err(format!("no sample photographs in {}; run `make demo`", directory.display()).into());
    }
    Ok(pictures)
}

/// The stamps of Tux Paint below a directory; a text beside each says in its first line what it shows. None if they
/// are not there.
fn stamps(directory: &Path) -> Vec<Picture> {
    let Ok((found, _)) = own(directory) else { return Vec::new() };
    let described = |mut picture: Picture| {
        let Source::File(path) = &picture.source else { return picture };
        let text = fs::read_to_string(path.with_extension("txt")).unwrap_or_default();
        let line = text.lines().next().unwrap_or_default().trim().trim_end_matches(['.', '!']);
        let article = ["A ", "An ", "The ", "Some "].iter().find_map(|article| line.strip_prefix(article));
        let label = article.unwrap_or(line);
        picture.label = (!label.is_empty() && label.len() < 60).then(|| label.to_owned());
        picture.folder = picture.name.split('/').next().map(str::to_owned);
        picture
    };
    found.into_iter().map(described).collect()
}

/// A copy as a photo gets around: smaller, and with the losses of JPEG.
fn copy(original: &Picture) -> Option<Picture> {
    let image = image::load_from_memory(&original.read().ok()?).ok()?;
    let small = image.thumbnail(image.width() * 2 / 3, image.height() * 2 / 3);
    // JPEG knows no transparency.
    let mut white = image::RgbaImage::from_pixel(small.width(), small.height(), image::Rgba([255; 4]));
    image::imageops::overlay(&mut white, &small.to_rgba8(), 0, 0);
    let mut bytes = Vec::new();
    let encoder = image::codecs::jpeg::JpegEncoder::new_with_quality(&mut bytes, 60);
    image::DynamicImage::from(white).to_rgb8().write_with_encoder(encoder).ok()?;
    let name = Path::new(&original.name).file_stem()?.to_string_lossy();
    Some(Picture {
        name: format!("copy of {name}.jpg"),
        label: original.label.clone(),
        folder: Some("copies".to_owned()),
        source: Source::Bytes(bytes),
    })
}

fn colored_emoji() -> Result<Vec<Picture>, Box<dyn Error>> {
    let font = EMOJI_FONTS.iter().find_map(|path| fs::read(path).ok());
    let font = font.ok_or("no color emoji font; install fonts-noto-color-emoji or run `make demo`")?;
    emoji(&font)
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
            folder: Some("emoji".to_owned()),
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
                pictures.push(Picture { name, label: None, folder: None, source: Source::File(path) });
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

/// A picture without transparency, as imgvec embeds it.
pub fn on_white(image: &DynamicImage) -> RgbImage {
    let pixels = image.to_rgba8();
    RgbImage::from_fn(pixels.width(), pixels.height(), |x, y| {
        let [red, green, blue, alpha] = pixels.get_pixel(x, y).0.map(u32::from);
        let mix = |color: u32| u8::try_from((color * alpha + 255 * (255 - alpha)) / 255).unwrap_or(u8::MAX);
        Rgb([mix(red), mix(green), mix(blue)])
    })
}
