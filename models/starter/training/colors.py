"""Teaches a few numbers to name the color of a pixel, as people do: 11 colors, from the names of xkcd's color survey.

Writes `colors.npz`. The survey's 949 names (CC0; a table of matplotlib) are told by hundreds of thousands of people; those that end
with one of the basic names ("brick red", "pale sky blue") are the lesson.
"""

import argparse

import numpy as np

import corpus

# Each color with the words that mean it, in the order of the dimensions.
WORDS = {
    "red": "red reddish crimson scarlet", "orange": "orange orangish", "yellow": "yellow yellowish golden", "green": "green greenish",
    "blue": "blue bluish navy azure", "purple": "purple violet lilac", "pink": "pink pinkish magenta", "brown": "brown brownish",
    "black": "black", "white": "white whitish", "gray": "gray grey grayish greyish silver",
}  # fmt: skip
# Bright colors are rare in pictures and matter to whoever names them; brown and gray are everywhere.
WEIGHTS = np.array([2, 2, 1.7, 1.4, 1.4, 2, 2, 1, 1, 1, 0.8], np.float32)
SIDE = 32  # of the pictures whose pixels are named
HIDDEN = 24


def middle() -> np.ndarray:
    """How much each pixel counts, float32 `[SIDE, SIDE]`, sum 1: a third everywhere, the rest around the middle."""
    place = (np.arange(SIDE) + 0.5) / SIDE - 0.5
    bell = np.exp(-(place[:, None] ** 2 + place**2) / (2 * 0.22**2))
    return (bell / bell.sum() * 2 / 3 + 1 / (3 * SIDE * SIDE)).astype(np.float32)


def survey() -> tuple[np.ndarray, np.ndarray]:
    """RGB `[n, 3]` of 0 to 1, and the color that each is."""
    from matplotlib.colors import XKCD_COLORS, to_rgb

    meant = {word: row for row, words in enumerate(WORDS.values()) for word in words.split() if word not in ("golden", "navy", "magenta", "silver")}
    lessons = [(to_rgb(code), meant[last]) for name, code in XKCD_COLORS.items() if (last := name.removeprefix("xkcd:").split()[-1]) in meant]
    # The survey asks little about what has no hue.
    lessons += [((v, v, v), 8 if v < 0.2 else 9 if v > 0.88 else 10) for v in np.linspace(0, 1, 60)]
    return np.array([rgb for rgb, _ in lessons]), np.array([color for _, color in lessons])


def fit(rgb: np.ndarray, color: np.ndarray, steps: int = 3000) -> dict[str, np.ndarray]:
    """Two small layers, fitted by Adam to noisy copies of the survey."""
    random = np.random.default_rng(1)
    weights = {"first": random.normal(size=(HIDDEN, 3)) * 2, "first_bias": random.normal(size=HIDDEN),
               "second": random.normal(size=(len(WORDS), HIDDEN)) * 0.2, "second_bias": np.zeros(len(WORDS))}  # fmt: skip
    moments = {name: [np.zeros_like(value), np.zeros_like(value)] for name, value in weights.items()}
    share = 1 / np.bincount(color, minlength=len(WORDS)) ** 0.5
    share = (share / share[color].mean())[color]
    for step in range(1, steps + 1):
        x = np.clip(rgb + random.normal(size=rgb.shape) * 0.03, 0, 1)
        before = x @ weights["first"].T + weights["first_bias"]
        hidden = np.maximum(before, 0)
        scores = hidden @ weights["second"].T + weights["second_bias"]
        chance = np.exp(scores - scores.max(1, keepdims=True))
        chance /= chance.sum(1, keepdims=True)
        wrong = chance.copy()
        wrong[np.arange(len(color)), color] -= 1
        wrong *= (share / len(color))[:, None]
        back = (wrong @ weights["second"]) * (before > 0)
        slopes = {"second": wrong.T @ hidden, "second_bias": wrong.sum(0), "first": back.T @ x, "first_bias": back.sum(0)}
        for name, slope in slopes.items():
            slope = slope + 1e-4 * weights[name]
            first, second = moments[name]
            first += 0.1 * (slope - first)
            second += 0.01 * (slope**2 - second)
            weights[name] -= 0.02 * (1 - step / (steps + 1)) * (first / (1 - 0.9**step)) / (np.sqrt(second / (1 - 0.99**step)) + 1e-8)
    print(f"colors: {(chance.argmax(1) == color).mean():.3f} of {len(color)} colors of the survey named alike")
    return {name: value.astype(np.float32) for name, value in weights.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    corpus.add_arguments(parser)
    arguments = parser.parse_args()
    np.savez(corpus.cache_path(arguments, "colors.npz"), **fit(*survey()))


if __name__ == "__main__":
    main()
