#!/usr/bin/env python3
"""Clusters beside scikit-learn's HDBSCAN on five sets: adjusted Rand index of the exact form and of the graph form over 15 neighbors.

Needs numpy and scikit-learn. cargo build --release -p imgvec-library --example hdbscan; python3 benches/clusters.py target/release/examples/hdbscan
"""
import subprocess, sys, tempfile, time, warnings
import numpy
from sklearn.cluster import HDBSCAN
from sklearn.datasets import load_digits, make_blobs, make_moons
from sklearn.metrics import adjusted_rand_score

warnings.filterwarnings("ignore")
program = sys.argv[1]
random = numpy.random.default_rng(14)


def densities(rows, dim, clusters):
    """Clusters of densities that differ tenfold, and a tenth of noise."""
    centers = random.normal(0, 1, (clusters, dim))
    widths = random.uniform(.03, .3, clusters)
    of = random.integers(0, clusters, rows)
    points = centers[of] + random.normal(0, 1, (rows, dim)) * widths[of, None]
    noise = random.random(rows) < .1
    points[noise] = random.normal(0, 1.2, (noise.sum(), dim))
    return points


unit = lambda points: points / numpy.linalg.norm(points, axis=1, keepdims=True)
sets = {
    "blobs, 5,000 x 16": make_blobs(5000, 16, centers=30, cluster_std=1.5, random_state=1)[0],
    "moons, 4,000 x 2": make_moons(4000, noise=.06, random_state=1)[0],
    "digits, 1,797 x 64": unit(load_digits().data),
    "densities and noise, 10,000 x 32": densities(10000, 32, 60),
    "unit vectors, 20,000 x 64": unit(densities(20000, 64, 100)),
}
for name, points in sets.items():
    points = points.astype("float32")
    size = 5 if len(points) < 10000 else 10
    theirs = HDBSCAN(min_cluster_size=size, copy=True).fit(points.astype("float64")).labels_
    with tempfile.NamedTemporaryFile() as file:
        points.tofile(file.name)
        run = lambda *more: numpy.loadtxt(subprocess.run(
            [program, file.name, str(points.shape[1]), str(size), *more], capture_output=True, check=True).stdout.split(), dtype=int)
        exact, graph = run(), run("15")
    print(f"| {name}, min_size {size} | {theirs.max() + 1} | {adjusted_rand_score(theirs, exact):.4f} | {adjusted_rand_score(theirs, graph):.4f} |", flush=True)
