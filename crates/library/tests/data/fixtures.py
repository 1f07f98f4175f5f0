# Writes hdbscan.json: what scikit-learn's HDBSCAN answers for small sets. Run by hand, with scikit-learn 1.3 or newer:
# python3 fixtures.py > hdbscan.json
import json
import numpy
from sklearn.cluster import HDBSCAN
from sklearn.datasets import make_blobs, make_circles, make_moons

random = numpy.random.default_rng(14)
blobs = make_blobs(120, n_features=3, centers=5, cluster_std=[.3, .5, .8, .4, 1.0], random_state=3)[0]
sets = {
    "blobs": (blobs, 5),
    "large minimum": (blobs, 12),
    "blobs and noise": (numpy.concatenate([blobs[:90], random.uniform(-12, 12, (40, 3))]), 4),
    "moons": (make_moons(100, noise=.06, random_state=1)[0], 5),
    "circles": (make_circles(100, noise=.04, factor=.4, random_state=1)[0], 5),
    "noise only": (random.uniform(0, 1, (60, 4)), 5),
}
# Where distances tie, the answer depends on the order of the rows: all that 40 orders give.
found = {}
for name, (points, min_size) in sets.items():
    points = points.round(4)
    answers = {}
    for _ in range(40):
        order = random.permutation(len(points))
        model = HDBSCAN(min_cluster_size=min_size, algorithm="brute", copy=True).fit(points[order])
        labels, strengths = numpy.empty(len(points), int), numpy.empty(len(points))
        labels[order], strengths[order] = model.labels_, model.probabilities_
        renamed = {-1: -1}
        labels = [renamed.setdefault(int(label), len(renamed) - 1) for label in labels]
        strengths = [round(float(s), 6) for s in strengths]
        answers[tuple(labels), tuple(strengths)] = {"labels": labels, "strengths": strengths}
    found[name] = {"min_size": min_size, "points": points.tolist(), "answers": list(answers.values())}
print(json.dumps(found, separators=(",", ":")))
