//! Finding packages on the model path.

use std::fs;
use std::path::{Path, PathBuf};

use super::place::Bounds;
use super::{FindHalf, Package, PackageError};

/// Longest name of a package, in bytes.
const MAX_NAME_BYTES: usize = 200;
/// Most directory entries that are looked at in one directory of the model path.
const MAX_ENTRIES: usize = 10_000;
/// Most similar names that an error offers.
const MAX_SIMILAR: usize = 3;

/// A directory on the model path that holds a package, or something that was meant to be one.
#[derive(Debug)]
pub struct Listed {
    /// Its name, as [`Package::find`] takes it.
    pub name: String,
    /// Its directory.
    pub dir: PathBuf,
    /// The package, or what is wrong with it.
    pub package: Result<Package, PackageError>,
}

impl Package {
    /// Opens the package called `name` in the first directory of `model_path` that has it. A name is
    /// one directory name, or two joined by a slash as in `openai/clip-vit-base-patch32`.
    ///
    /// # Errors
    /// [`PackageError::InvalidName`], [`PackageError::NotFound`], or what [`Package::open`] says.
    pub fn find(model_path: &[PathBuf], name: &str) -> Result<Package, PackageError> {
        Self::find_with(model_path, name, Some(&|half| Self::find_lender(model_path, half)))
    }

    /// A package that lends a tower, and so takes none from another.
    pub(super) fn find_lender(model_path: &[PathBuf], name: &str) -> Result<Package, PackageError> {
        Self::find_with(model_path, name, None)
    }

    /// As [`Package::find`], with the way to find packages that lend a tower, if this one may borrow.
    fn find_with(
        model_path: &[PathBuf],
        name: &str,
        halves: Option<FindHalf<'_>>,
    ) -> Result<Package, PackageError> {
        if !is_valid(name) {
            return Err(PackageError::InvalidName { name: name.to_owned() });
        }
        for root in model_path {
            let dir = root.join(name);
            match dir.metadata() {
                Ok(metadata) if metadata.is_dir() => {
                    return Package::open_named(&dir, name.to_owned(), bounds(model_path), halves);
                }
                Ok(_) => {}
                Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
                    return Err(PackageError::Unreadable { path: dir, source: error });
                }
                // Not here; a directory that cannot be looked into is no reason to stop either.
                Err(_) => {}
            }
        }
        Err(PackageError::NotFound {
            name: name.to_owned(),
            searched: model_path.to_vec(),
            similar: similar(name, directories(model_path).into_iter().map(|(name, _)| name)),
        })
    }

    /// Every package on the model path, usable or not, in the order in which they are found. Of
    /// several with one name only the first, which hides the others, is listed.
    #[must_use]
    pub fn list(model_path: &[PathBuf]) -> Vec<Listed> {
        let bounds = bounds(model_path);
        let open = |(name, dir): (String, PathBuf)| {
            let half = |half: &str| Self::find_lender(model_path, half);
            let package = Package::open_named(&dir, name.clone(), bounds.clone(), Some(&half));
            Listed { name, dir, package }
        };
        directories(model_path).into_iter().map(open).collect()
    }
}

/// What the packages of a model path may open: anything below its directories.
fn bounds(model_path: &[PathBuf]) -> Bounds {
    Bounds::of(model_path.iter().map(PathBuf::as_path))
}

/// Whether a name stays below the model path: letters, digits, dot, underscore and hyphen, at most
/// one slash, and no part that starts with a dot.
fn is_valid(name: &str) -> bool {
    let part = |part: &str| {
        !part.is_empty()
            && !part.starts_with('.')
            && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
    };
    name.len() <= MAX_NAME_BYTES && name.split('/').count() <= 2 && name.split('/').all(part)
}

/// Directories that look like packages, by name, each name once. A directory that holds none of a
/// package's files but directories that do is an owner, as `openai` in `openai/clip`.
fn directories(model_path: &[PathBuf]) -> Vec<(String, PathBuf)> {
    let mut found: Vec<(String, PathBuf)> = Vec::new();
    let mut add = |name: String, dir: PathBuf| {
        if found.iter().all(|(known, _)| *known != name) {
            found.push((name, dir));
        }
    };
    let bounds = bounds(model_path);
    for root in model_path {
        for (name, dir) in children(root) {
            if looks_like_package(&dir) {
                add(name, dir);
                continue;
            }
            // What a link to elsewhere holds is nobody's business.
            if bounds.resolve(&dir).is_err() {
                continue;
            }
            for (model, below) in children(&dir).into_iter().filter(|(_, below)| looks_like_package(below)) {
                add(format!("{name}/{model}"), below);
            }
        }
    }
    found
}

fn children(dir: &Path) -> Vec<(String, PathBuf)> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    let mut children: Vec<_> = entries
        .take(MAX_ENTRIES)
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok().map(|name| (name, entry.path())))
        .filter(|(name, path)| is_valid(name) && path.is_dir())
        .collect();
    children.sort();
    children
}

fn looks_like_package(dir: &Path) -> bool {
    const SIGNS: [&str; 7] = [
        "imgvec.toml",
        "config.json",
        "open_clip_config.json",
        "tokenizer.json",
        "preprocessor_config.json",
        "onnx",
        "visual",
    ];
    if SIGNS.iter().any(|sign| dir.join(sign).exists()) {
        return true;
    }
    match fs::read_dir(dir) {
        Ok(entries) => entries
            .take(MAX_ENTRIES)
            .flatten()
            .any(|entry| entry.path().extension().is_some_and(|extension| extension == "onnx")),
        // Somebody should be told.
        Err(error) => error.kind() == std::io::ErrorKind::PermissionDenied,
    }
}

/// Names close to `wanted`, the closest first: equal but for case or owner, or a few edits away.
fn similar(wanted: &str, names: impl Iterator<Item = String>) -> Vec<String> {
    let last = |name: &str| name.rsplit('/').next().unwrap_or_default().to_ascii_lowercase();
    let wanted_last = last(wanted);
    let mut scored: Vec<(usize, String)> = names
        .map(|name| {
            let candidate = last(&name);
            let distance = if candidate.contains(&wanted_last) || wanted_last.contains(&candidate) {
                1
            } else {
                edits(&wanted_last, &candidate)
            };
            (distance, name)
        })
        .filter(|(distance, _)| *distance <= wanted_last.len().div_ceil(3))
        .collect();
    scored.sort();
    scored.into_iter().take(MAX_SIMILAR).map(|(_, name)| name).collect()
}

/// Levenshtein distance in bytes; both are bounded by [`MAX_NAME_BYTES`].
fn edits(left: &str, right: &str) -> usize {
    let right = right.as_bytes();
    let mut previous: Vec<usize> = (0..=right.len()).collect();
    for (row, byte) in left.bytes().enumerate() {
        let mut current = vec![row + 1];
        for (column, other) in right.iter().enumerate() {
            let substitute = previous[column] + usize::from(byte != *other);
            current.push(substitute.min(previous[column + 1] + 1).min(current[column] + 1));
        }
        previous = current;
    }
    previous[right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_leave_the_model_path() {
        for name in ["clip", "openai/clip-vit-base-patch32", "a.b_c-1"] {
            assert!(is_valid(name), "{name}");
        }
        for name in ["", "/etc", "../clip", "a/../b", "a/b/c", "a//b", ".hidden", "a/.b", "a b", "a\0b", "é"]
        {
            assert!(!is_valid(name), "{name}");
        }
        assert!(!is_valid(&"a".repeat(201)));
    }

    #[test]
    fn similar_names_come_closest_first() {
        let names = ["clip-vit-base", "siglip-base", "all-MiniLM-L6-v2"].map(str::to_owned);
        assert_eq!(similar("clip-vit-bose", names.iter().cloned()), ["clip-vit-base"]);
        assert_eq!(similar("MiniLM", names.iter().cloned()), ["all-MiniLM-L6-v2"]);
        assert!(similar("qwen", names.into_iter()).is_empty());
        assert_eq!(edits("kitten", "sitting"), 3);
    }
}
