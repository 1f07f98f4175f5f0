#!/usr/bin/env python3
"""Writes the copyright file of the Debian package, in Debian's machine-readable format (DEP-5).

    tests/deb-copyright.py 15 usr/lib/postgresql/15/lib usr/share/postgresql/15 >copyright

It covers what the package holds: imgvec and its starter model, the crates linked into the library, Rust's standard
library, and ONNX Runtime as far as target/onnxruntime tells its terms. `cargo tree` says which crates are linked, their
manifests say under which terms, their sources who wrote them. Nothing about a crate is written down here: terms
that no source spells out end the build.
"""

import json
import re
import subprocess
import sys
from pathlib import Path

# What only the text of a license says, in the words of SPDX; of several that fit, the first.
PHRASES = {
    "Apache-2.0 WITH LLVM-exception": "LLVM Exceptions to the Apache 2.0 License",
    "Apache-2.0": "Apache License Version 2.0, January 2004",
    "BSL-1.0": "Boost Software License - Version 1.0",
    "Unicode-3.0": "UNICODE LICENSE V3",
    "Unlicense": "This is free and unencumbered software released into the public domain",
    "CC0-1.0": "CC0 1.0 Universal",
    "Zlib": "must not be misrepresented; you must not claim",
    "BSD-3-Clause": "be used to endorse or promote products derived from this software",
    "BSD-2-Clause": "Redistribution and use in source and binary forms",
    "ISC": "with or without fee is hereby granted, provided that the above",
    "0BSD": "with or without fee is hereby granted.",
    "MIT": "shall be included in all copies or substantial portions",
    "MIT-0": "Permission is hereby granted, free of charge, to any person obtaining a copy",
    "PostgreSQL": "this paragraph and the following two paragraphs appear in all copies",
}
CLAIM = re.compile(
    r"^\W*(?:Copyright|\u00a9)\s+(?:\([cC]\)|\u00a9)?\s*(?!notice|license|owner|holder|statement|and\b|in\b)(\S.*)",
    re.M,
)
COMMON = Path("/usr/share/common-licenses")
OPERATORS = re.compile(r"\s*(\bOR\b|\bAND\b|[()])\s*")


def cargo(command, *arguments):
    return subprocess.check_output(["cargo", command, "--locked", *arguments], text=True)


def license_of(text):
    words = " ".join(text.split())
    return next((name for name, phrase in PHRASES.items() if phrase in words), None)


def license_files(directory):
    """The texts of license files in a crate's own directory, and in folders of them, by name."""
    named = (path for path in sorted(directory.iterdir()) if re.match(r"(un)?licen|copying|copyright", path.name, re.I))
    files = (file for path in named for file in (sorted(path.iterdir()) if path.is_dir() else [path]))
    return [file.read_text(encoding="utf-8", errors="replace") for file in files if file.is_file()]


def holders(texts, authors=()):
    """Who claims a copyright in a line of its own: not where a license speaks of one, nor where a name is to be filled
    in. Where only a year stands, or nothing, it is the authors.
    """
    authors = ", ".join(authors)
    lines = [match[1].rstrip(" */") for text in texts for match in CLAIM.finditer(text)]
    lines = [line for line in lines if not re.search(r"[<\[{](year|yyyy)[>\]}]", line)]
    named = [line if re.search(r"[A-Za-z]", line) else f"{line} {authors}" for line in lines]
    return "\n           ".join(dict.fromkeys(named or [authors]))


def expression(spdx):
    """SPDX's `(A OR B) AND C` in Debian's words, where a comma ends what a parenthesis does: `A or B, and C`."""
    words = [word for word in OPERATORS.split(spdx.replace("/", " OR ")) if word]
    if "(" in words and not (words[0] == "(" and words.count("(") == 1):
        sys.exit(f"deb-copyright: how to say {spdx} in Debian's words is not known")
    text = " ".join(word.lower() if word in ("OR", "AND") else word for word in words)
    text = text.replace("( ", "").replace(" )", ",")
    text = re.sub(r" WITH (\S+)-exception", r" with \1 exception", text)
    return text, [word for word in words if word not in ("OR", "AND", "(", ")")]


def folded(text):
    """Lines of a field after its first: indented, and a dot where one is empty."""
    lines = [line.rstrip() for line in text.strip("\n").splitlines()]
    return "".join(f"\n {line}" if line else "\n ." for line in lines)


def paragraph(**fields):
    print("\n" + "\n".join(f"{name}: {value}".replace(": \n", ":\n") for name, value in fields.items() if value))


def linked_crates(major):
    features = ["--no-default-features", "--features", f"pg{major}"]
    tree = cargo("tree", "--edges", "normal,no-proc-macro", "--prefix", "none", "--format", "{p}", *features)
    linked = {tuple(line.split()[:2]) for line in tree.splitlines()}
    host = subprocess.check_output(["rustc", "--print", "host-tuple"], text=True).strip()
    packages = json.loads(cargo("metadata", "--format-version", "1", "--filter-platform", host))["packages"]
    crates = [p for p in packages if p["source"] and (p["name"], "v" + p["version"]) in linked]
    return sorted(crates, key=lambda package: (package["name"], package["version"]))


def main(major, libraries, shared):
    ours = Path("LICENSE").read_text()
    our_holders = holders([ours])
    texts = {"PostgreSQL": re.sub(r"\A.*?Copyright[^\n]*\n\n", "", ours, flags=re.S)}  # the shortest, by license
    used = {"Apache-2.0", "MIT", "PostgreSQL"}

    print("Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/")
    print("Upstream-Name: imgvec")
    print("Comment:" + folded(
        f"{libraries}/imgvec.so is linked from imgvec, from Rust's standard library and from the crates that are\n"
        "named vendor/NAME-VERSION here, as `cargo vendor --versioned-dirs` lays their sources out."
    ))
    paragraph(Files="*", Copyright=our_holders, License="PostgreSQL")

    card = Path("models/starter/README.md").read_text()
    terms = re.search(r"^## Data and terms\n(.*?)(?=^## |\Z)", card, re.M | re.S)
    if not terms:
        sys.exit("deb-copyright: models/starter/README.md tells no terms")
    model = f"{shared}/imgvec/models/starter/*"
    paragraph(Files=model, Copyright=our_holders, License="PostgreSQL", Comment=folded(terms[1]))

    runtime = Path("target/onnxruntime")
    library = f"{libraries}/imgvec/libonnxruntime.so"
    if (runtime / "LICENSE").exists():
        text = (runtime / "LICENSE").read_text()
        name = license_of(text)
        if name is None:
            sys.exit("deb-copyright: the license of ONNX Runtime is not known")
        used.add(name)
        notices = (runtime / "ThirdPartyNotices.txt").read_text(encoding="utf-8", errors="replace")
        paragraph(
            Files=library,
            Copyright=holders([text]),
            License=f"{name} and ONNX-Runtime-third-party",
            Comment=folded("ONNX Runtime, with the libraries of others that it contains."),
        )
    else:
        notices = None
        paragraph(
            Files=library,
            Copyright="its authors",
            License="unknown\n The builder of this package supplied the file; its terms are those under which it was had.",
        )

    rust = subprocess.check_output(["rustc", "--version"], text=True).split()[1]
    paragraph(
        Files=f"vendor/rust-std-{rust}/*",
        Copyright="The Rust Project contributors",
        License="Apache-2.0 or MIT",
        Comment=folded("What it contains in turn: share/doc/rust/COPYRIGHT-library.html of its toolchain."),
    )
    for crate in linked_crates(major):
        where = f"{crate['name']} {crate['version']}"
        if not crate["license"]:
            sys.exit(f"deb-copyright: the manifest of {where} names no license")
        files = license_files(Path(crate["manifest_path"]).parent)
        for text in files:
            texts[license_of(text)] = min(texts.get(license_of(text), text), text, key=len)
        names, licenses = expression(crate["license"])
        used.update(licenses)
        paragraph(
            Files=f"vendor/{crate['name']}-{crate['version']}/*",
            Copyright=holders(files, crate["authors"] or [f"the authors of {crate['name']}"]),
            License=names,
        )

    for name in sorted(used):
        if (COMMON / name).exists():
            text = f"On Debian systems the text is in {COMMON / name}."
        elif name in texts:
            text = re.sub(r"^\W*(?:Copyright|\u00a9)\s+(?:\(c\)|\u00a9|\d)[^\n]*\n", "", texts[name], flags=re.I | re.M)
        else:
            sys.exit(f"deb-copyright: no source that is linked has the text of {name}")
        paragraph(License=expression(name)[0] + folded(text))
    if notices:
        paragraph(License="ONNX-Runtime-third-party" + folded(notices))


main(*sys.argv[1:])
