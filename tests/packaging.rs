//! What others install from: `make install`, `Dockerfile`, PGXN's `META.json`, the manifests. They say the same as the sources.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The value of `key = "value"` in a manifest or a control file.
fn field<'a>(text: &'a str, key: &str, quote: char) -> &'a str {
    let start = format!("{key} = {quote}");
    let line = text.lines().find_map(|line| line.strip_prefix(&start));
    line.and_then(|rest| rest.strip_suffix(quote)).unwrap_or_else(|| panic!("there is no {key}"))
}

/// Instructions of a Dockerfile with their arguments, continued lines joined, comments left out.
fn instructions(dockerfile: &str) -> Vec<(String, String)> {
    let lines = dockerfile.lines().filter(|line| !line.starts_with('#'));
    let joined = lines.collect::<Vec<_>>().join("\n").replace("\\\n", " ");
    let instructions = joined.lines().map(str::trim).filter(|line| !line.is_empty());
    instructions
        .map(|line| line.split_once(' ').unwrap_or_else(|| panic!("{line}: no argument")))
        .map(|(instruction, argument)| (instruction.to_owned(), argument.trim().to_owned()))
        .collect()
}

#[test]
fn the_dockerfile_fits_the_sources() {
    let manifest = read("Cargo.toml");
    let dockerfile = instructions(&read("Dockerfile"));
    let of = |name: &str| -> Vec<&str> {
        dockerfile.iter().filter(|(i, _)| i == name).map(|(_, argument)| argument.as_str()).collect()
    };
    let known = ["ARG", "COPY", "ENV", "FROM", "RUN", "SHELL", "USER", "WORKDIR"];
    for (instruction, argument) in &dockerfile {
        assert!(known.contains(&instruction.as_str()), "{instruction} {argument}");
    }

    let rust = of("FROM")
        .into_iter()
        .find_map(|image| image.strip_prefix("rust:"))
        .expect("Rust comes from an image");
    let version = field(&manifest, "rust-version", '"');
    assert!(rust.starts_with(&format!("{version}-")), "the compiler is {rust}, Cargo.toml wants {version}");
    // Both images are of one Debian: the C library that the extension is linked with is the one that it runs with.
    let images: Vec<&str> = of("FROM").into_iter().map(|image| image.split(' ').next().unwrap()).collect();
    assert!(images.iter().all(|image| image.ends_with("-bookworm")), "{images:?}");
    assert_eq!(
        images.iter().filter(|image| **image == "postgres:${PG_MAJOR}-bookworm").count(),
        2,
        "{images:?}"
    );
    let major = of("ARG").into_iter().find_map(|argument| argument.strip_prefix("PG_MAJOR=")).unwrap();
    assert!(manifest.contains(&format!("\npg{major} = [")), "no feature for PostgreSQL {major}");

    // What every build needs stands at the beginning of a line of tests/setup.sh.
    let run = of("RUN").join(" ");
    let words: BTreeSet<&str> = run.split_whitespace().collect();
    let setup = read("tests/setup.sh");
    let needed: Vec<&str> = setup
        .lines()
        .filter_map(|line| line.strip_prefix("need "))
        .map(|rest| rest.split(' ').next().unwrap())
        .collect();
    assert!(needed.len() >= 8, "{needed:?}");
    for package in needed {
        assert!(
            words.contains(package),
            "the Dockerfile does not install {package}, which tests/setup.sh does"
        );
    }
    assert!(
        run.contains("postgresql-server-dev-${PG_MAJOR}") && run.contains("make install DESTDIR=/installed")
    );
    let makefile = read("Makefile");
    assert!(makefile.contains("\ninstall:\n") && makefile.contains("\"$(DESTDIR)\""));

    let stages: Vec<&str> =
        of("FROM").into_iter().filter_map(|from| from.split_once(" AS ")).map(|f| f.1).collect();
    for copy in of("COPY") {
        if let Some(from) = copy.strip_prefix("--from=") {
            let stage = from.split(' ').next().unwrap();
            assert!(stages.contains(&stage), "COPY {copy}: there is no stage {stage}");
        }
    }
    let (instruction, user) = dockerfile.last().unwrap();
    assert_eq!(
        (instruction.as_str(), user.as_str()),
        ("USER", "postgres"),
        "the server runs without root's rights"
    );
    assert!(
        read(".dockerignore").lines().any(|line| line == "target"),
        "gigabytes would go to the Docker daemon"
    );
}

#[test]
fn pgxn_is_told_what_the_sources_say() {
    let meta: Value = serde_json::from_str(&read("META.json")).unwrap();
    let manifest = read("Cargo.toml");
    let text = |value: &Value, what: &str| -> String {
        let text = value.as_str().unwrap_or_else(|| panic!("{what} is no text"));
        assert!(!text.trim().is_empty(), "{what} is empty");
        text.to_owned()
    };
    // What the specification of PGXN, version 1.0.0, requires.
    for required in ["abstract", "license", "maintainer", "meta-spec", "name", "provides", "version"] {
        assert!(meta.get(required).is_some(), "{required} is missing");
    }
    assert_eq!(text(&meta["meta-spec"]["version"], "meta-spec"), "1.0.0");
    assert_eq!(text(&meta["name"], "name"), "imgvec");
    text(&meta["maintainer"], "maintainer");
    assert_eq!(text(&meta["license"], "license"), field(&manifest, "license", '"').to_lowercase());
    assert_eq!(text(&meta["version"], "version"), env!("CARGO_PKG_VERSION"));
    assert_eq!(env!("CARGO_PKG_VERSION").split('.').count(), 3, "a semantic version");
    let oldest = manifest
        .lines()
        .filter_map(|line| line.strip_prefix("pg")?.split_once(" = ")?.0.parse::<u32>().ok())
        .min()
        .unwrap();
    assert_eq!(meta["prereqs"]["runtime"]["requires"]["PostgreSQL"], format!("{oldest}.0.0"));

    let provided = meta["provides"].as_object().expect("extensions by name");
    let mut controls: Vec<String> = fs::read_dir(root())
        .unwrap()
        .filter_map(|entry| entry.unwrap().file_name().to_str()?.strip_suffix(".control").map(str::to_owned))
        .collect();
    controls.sort();
    assert!(provided.keys().eq(&controls), "{provided:?} and {controls:?}");
    for (name, extension) in provided {
        assert_eq!(extension["version"], meta["version"], "{name}");
        let control = read(&format!("{name}.control"));
        assert_eq!(field(&control, "default_version", '\''), "@CARGO_VERSION@", "{name}");
        let comment = field(&control, "comment", '\'');
        assert!(text(&extension["abstract"], name).eq_ignore_ascii_case(comment), "{name}: {comment}");
        for file in ["file", "docfile"] {
            let path = text(&extension[file], file);
            assert!(root().join(&path).is_file(), "{name}: {path} is not there");
        }
    }
    // Its client runs `make all`, then `make install`.
    assert!(read("Makefile").contains("\nall: build\n"));
}

/// Files by name, below a directory.
fn files(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display())) {
        let path = entry.unwrap().path();
        if path.is_dir() { files(&path, found) } else { found.push(path) }
    }
}

/// Names in these sections of a manifest.
fn dependencies(manifest: &str, sections: &[&str]) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut is_in = false;
    for line in manifest.lines() {
        if line.starts_with('[') {
            is_in = sections.contains(&line.trim_matches(['[', ']']));
        } else if is_in && line.starts_with(|c: char| c.is_ascii_alphabetic()) {
            found.insert(line.split(['.', ' ', '=']).next().unwrap().to_owned());
        }
    }
    found
}

#[test]
fn every_dependency_is_used() {
    let packages = [
        (".", vec!["src", "tests", "benches"]),
        ("crates/vector", vec!["crates/vector"]),
        ("crates/ann", vec!["crates/ann"]),
        ("crates/encoder", vec!["crates/encoder"]),
        ("crates/codecs", vec!["crates/codecs"]),
        ("crates/library", vec!["crates/library"]),
        // Both share the cluster with tests.
        ("examples/demo", vec!["examples/demo", "tests/cluster"]),
        // It shares a module with the demo.
        ("examples/gallery", vec!["examples/gallery", "examples/demo", "tests/cluster"]),
    ];
    let mut wanted = BTreeSet::new();
    for (package, directories) in packages {
        let mut paths = Vec::new();
        for directory in directories {
            files(&root().join(directory), &mut paths);
        }
        let sources: String = paths
            .iter()
            .filter(|path| path.extension() == Some(OsStr::new("rs")))
            .map(|path| fs::read_to_string(path).unwrap())
            .collect();
        let manifest = read(&format!("{package}/Cargo.toml"));
        for name in dependencies(&manifest, &["dependencies", "dev-dependencies", "build-dependencies"]) {
            // Packages whose library has another name.
            let library = if name == "kamadak-exif" { "exif".to_owned() } else { name.replace('-', "_") };
            let is_used = ["::", ";", " as "].iter().any(|end| sources.contains(&format!("{library}{end}")));
            assert!(is_used, "{package} does not use {name}");
            wanted.insert(name);
        }
    }
    let shared = dependencies(&read("Cargo.toml"), &["workspace.dependencies"]);
    let unused: Vec<_> = shared.difference(&wanted).collect();
    assert!(unused.is_empty(), "no package of the workspace uses {unused:?}");
}

/// Sections of an ELF file.
fn sections(library: &Path) -> String {
    let output = Command::new("readelf").args(["--wide", "--section-headers"]).arg(library).output();
    let output = output.expect("readelf, of binutils, runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn what_is_installed_has_no_debug_information() {
    let program = std::env::current_exe().unwrap();
    let library = program.ancestors().nth(2).unwrap().join("libimgvec.so");
    assert!(sections(&library).contains(".debug_line"), "there is something to strip");
    let scratch = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("packaging-{}", std::process::id()));
    for (profile, is_stripped) in [("release", true), ("checked", false)] {
        let built = scratch.join("target").join(profile);
        fs::create_dir_all(&built).unwrap();
        std::os::unix::fs::symlink(&library, built.join("libimgvec.so")).unwrap();
        let place = scratch.join(profile);
        let install = Command::new("tests/install.sh")
            .arg(&place)
            .current_dir(root())
            .env("CARGO_TARGET_DIR", scratch.join("target"))
            .env("IMGVEC_PROFILE", profile)
            .env_remove("IMGVEC_KEEP_DEBUG")
            .output()
            .unwrap();
        assert!(install.status.success(), "{}", String::from_utf8_lossy(&install.stderr));
        let mut installed = Vec::new();
        files(&place, &mut installed);
        let named = |name: &str| installed.iter().find(|path| path.file_name() == Some(OsStr::new(name)));
        let found = sections(named("imgvec.so").unwrap());
        assert_eq!(found.contains(".debug_line"), !is_stripped, "{profile}");
        assert!(found.contains(".dynsym"), "{profile}: the server finds functions by it");
        assert!(named("libonnxruntime.so").is_some() && named("imgvec.control").is_some());
        assert!(!installed.iter().any(|path| path.extension() == Some(OsStr::new("new"))), "{installed:?}");
        fs::remove_dir_all(&place).unwrap();
    }
    fs::remove_dir_all(&scratch).unwrap();
}

#[test]
fn every_script_has_its_line_in_the_readme() {
    let readme = read("tests/README.md");
    let mut scripts = Vec::new();
    for entry in fs::read_dir(root().join("tests")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if name.ends_with(".sh") || name.ends_with(".py") || name.ends_with(".rs") {
            scripts.push(name);
        }
    }
    assert!(scripts.len() > 15, "{scripts:?}");
    for name in scripts {
        assert!(readme.contains(&format!("| `{name}` |")), "tests/README.md does not say what {name} does");
    }
}
